"""Asks a challenger what a client has just been answered, unseen: what it says is kept beside our answer, and compared.

It costs the client nothing. A picture is taken once its answer was sent, into a short queue that one thread empties;
what does not fit is dropped and counted. Whatever the challenger does, or does not, ends in a counter and a row.
"""

import http.client
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from starlette.background import BackgroundTask

from imago.monitoring.prediction_store import PredictionStore, timestamp
from imago.monitoring.prediction_writer import PredictionWriter
from imago.serving.answers import Prediction
from imago.serving.metrics import Metrics
from imago.serving.settings import PROBE_HEADER
from imago.serving.shadow_note import ShadowNote

LOOK_SECONDS = 1.0  # pictures are taken for a challenger, or no more, that much later at most
MAX_WAITING = 16  # pictures
MAX_WAITING_BYTES = 20_000_000
ANSWER_SECONDS = 10.0
LONGEST_ANSWER = 100_000  # bytes
IDLE_SECONDS = 3.0  # after which a connection is made anew: the server closes it after 5
LONGEST_PAUSE = 10.0  # seconds, after one that cannot be reached
TIMING = "Server-Timing"
"""The header in which a probe is told how many milliseconds of one core its prediction took."""

Failure = Literal["unreachable", "refused", "nonsense"]

logger = logging.getLogger("imago.shadow")


@dataclass(frozen=True)
class Asked:
    """A picture, and what is known of the answer that its client was given."""

    picture: bytes
    prediction_id: str
    time: datetime
    seconds: float  # of one core


class ShadowError(Exception):
    """The challenger gave no answer."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure


def server_timing(seconds: float) -> dict[str, str]:
    """Return the header that tells how long a prediction took."""
    return {TIMING: f"predict;dur={1000 * seconds:.3f}"}


class Mirror:
    """The way to the challenger that a note names, while there is one."""

    def __init__(
        self,
        note: Path,
        store: PredictionStore,
        metrics: Metrics,
        *,
        version: str,
        answer_seconds: float = ANSWER_SECONDS,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.path = note
        self.store = store
        self.metrics = metrics
        self.version = version
        self.answer_seconds = answer_seconds
        self.longest_pause = longest_pause
        self.note: ShadowNote | None = None
        self.writer: PredictionWriter | None = None
        self._stamp: tuple[int, ...] | None = None
        self._look_at = 0.0
        self._looking = threading.Lock()
        self._waiting: deque[Asked] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def after(self, asked: Sequence[Asked]) -> BackgroundTask | None:
        """Return what is to be done once the answer was sent, where the share falls on any of its pictures."""
        note = self._current()
        chosen = [one for one in asked if _falls_on(one.prediction_id, note.share)] if note else []
        return BackgroundTask(self._take, chosen) if chosen else None

    def close(self) -> None:
        """End the thread; what still waits is dropped."""
        with self._change:
            self._ended = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(timeout=1)  # it may wait for an answer, and does not hold the process
        if self.writer is not None:
            self.writer.close()

    async def _take(self, asked: Sequence[Asked]) -> None:
        dropped = 0
        with self._change:
            for one in asked:
                if len(self._waiting) >= MAX_WAITING or self._bytes + len(one.picture) > MAX_WAITING_BYTES:
                    dropped += 1
                    continue
                self._waiting.append(one)
                self._bytes += len(one.picture)
            self._change.notify()
        if dropped and self.note is not None:
            self._count(self.note, "dropped", dropped)
        if self._thread is None and not self._ended:
            self.writer = PredictionWriter(
                self.store,
                what="A shadow's answers",
                add=self.store.add_shadows,
                on_lost=self.metrics.shadow_lost.inc,
            )
            self._thread = threading.Thread(target=self._run, args=(self.writer,), name="shadow", daemon=True)
            self._thread.start()

    def _current(self) -> ShadowNote | None:
        """Return the note, where it is meant for this version."""
        if time.monotonic() >= self._look_at:
            self._look()
        return self.note

    def _look(self) -> ShadowNote | None:
        """Return the note as it is at this moment."""
        with self._looking:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._read()
            return self.note

    def _read(self) -> None:
        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            note = ShadowNote.model_validate_json(self.path.read_bytes())
            self.note = note if note.champion == self.version else None
        except FileNotFoundError:
            self.note = self._stamp = None
        except OSError as error:  # which may be another in a second
            self.note = self._stamp = None
            logger.error("The note on a shadow, %s, cannot be read: %s", self.path, error)
        except ValidationError as error:
            self.note = None
            what = error.errors(include_input=False)[0]["msg"]
            logger.error("The note on a shadow, %s, is none (%s).", self.path, what)

    def _run(self, writer: PredictionWriter) -> None:
        way: _Way | None = None
        failures = 0
        while (one := self._next()) is not None:
            note = self._look()
            if note is None:  # taken away meanwhile
                continue
            if way is None or way.note != note:
                way, failures = _Way(note, self.answer_seconds), 0
            row: dict[str, Any] = {
                "prediction_id": one.prediction_id,
                "time": timestamp(one.time),
                "version": note.version,
                "champion_seconds": one.seconds,
            }
            try:
                row |= way.ask(one.picture)
                outcome = "answered"
            except ShadowError as error:
                if self._look() != note:  # it was ended, which is no failure of its
                    continue
                outcome = row["failure"] = error.failure
                if not failures:
                    logger.warning("The shadow, version %s, gave no answer (%s): %s", note.version, outcome, error)
            self._count(note, outcome)
            writer.put(row)
            failures = 0 if outcome == "answered" else failures + 1
            if outcome == "unreachable":
                self._pause(min(2.0 ** min(failures, 10) / 4, self.longest_pause))

    def _next(self) -> Asked | None:
        """Wait for a picture and take it; None at the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._ended)
            if self._ended:
                return None
            one = self._waiting.popleft()
            self._bytes -= len(one.picture)
            return one

    def _pause(self, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._ended, timeout=seconds)

    def _count(self, note: ShadowNote, outcome: str, times: int = 1) -> None:
        self.metrics.shadow.labels(note.version, outcome).inc(times)


class _Way:
    """A connection to one challenger, which is asked no picture before it has said that it is that one."""

    def __init__(self, note: ShadowNote, seconds: float) -> None:
        self.note = note
        self.headers = {PROBE_HEADER: "shadow", "X-API-Key": note.key}
        self._connection = http.client.HTTPConnection("127.0.0.1", note.port, timeout=seconds)
        self._used = 0.0

    def ask(self, picture: bytes) -> dict[str, Any]:
        """Return what a row of the store has of the answer. Raises ShadowError."""
        now = time.monotonic()
        if now - self._used > IDLE_SECONDS:
            self._connection.close()
        if self._connection.sock is None:
            self._require_it()
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'.encode(),
            picture,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(sum(len(part) for part in parts)),
        }
        content, timing = self._request("POST", "/predict", parts, headers)
        try:
            answer = Prediction.model_validate_json(content)
        except ValidationError as error:
            raise ShadowError("nonsense", "its answer is none") from error
        if not self._is_it(answer.model.model_dump()):
            raise ShadowError("nonsense", f"it says that it is {answer.model.name} version {answer.model.version}")
        return {
            "label": answer.label,
            "probability": answer.probability,
            "rejected": int(answer.rejected),
            "seconds": _seconds(timing),
        }

    def _require_it(self) -> None:
        """Raise ShadowError where another program has come to listen where the challenger did."""
        content, _ = self._request("GET", "/info", None, {})
        try:
            said = json.loads(content)["model"]
        except (ValueError, LookupError, TypeError, RecursionError):
            said = None
        if not self._is_it(said):
            self._connection.close()
            raise ShadowError("unreachable", f"on port {self.note.port} is another program")

    def _is_it(self, said: Any) -> bool:
        return bool(said == {"name": self.note.model, "version": self.note.version})

    def _request(
        self, method: str, path: str, body: list[bytes] | None, headers: dict[str, str]
    ) -> tuple[bytes, str | None]:
        """Return the body of an answer with 200, and what it says of its time. Raises ShadowError."""
        try:
            self._connection.request(method, path, body, self.headers | headers)
            response = self._connection.getresponse()
            content = response.read(LONGEST_ANSWER)
            if not response.isclosed():  # there is more of it
                self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ShadowError("unreachable", f"{type(error).__name__} {error}") from error
        self._used = time.monotonic()
        if response.status != http.HTTPStatus.OK:
            raise ShadowError("refused", f"{path} was answered with {response.status}")
        return content, response.getheader(TIMING)


def _falls_on(prediction_id: str, share: float) -> bool:
    """Say whether a share of all falls on this one, whose id is random."""
    return int(prediction_id[:8], 16) < share * 2**32


def _seconds(timing: str | None) -> float | None:
    try:
        return float((timing or "").partition("dur=")[2]) / 1000
    except ValueError:
        return None
