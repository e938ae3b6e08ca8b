"""Keeps predictions without holding a request up: a thread writes them in batches, and a full disk costs no answer."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imago.errors import ImagoError
from imago.monitoring.prediction_store import PredictionStore

logger = logging.getLogger("imago.predictions")

MAX_PENDING = 10_000
MAX_BATCH = 500
PRUNE_SECONDS = 3600.0


class PredictionWriter:
    """Writes rows to a store behind a bounded queue. What cannot be written is tried again until the queue is full.

    `prune`, which forgets old rows, is called once an hour while it writes. `on_lost` is told how many rows
    were given up, each time that some were. `add` is how the store takes rows, if not as predictions, and `what` they
    are called in the log.
    """

    def __init__(
        self,
        store: PredictionStore,
        *,
        what: str = "Predictions",
        interval: float = 0.2,
        max_pending: int = MAX_PENDING,
        prune: Callable[[], object] | None = None,
        on_lost: Callable[[int], object] = lambda _: None,
        add: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
    ) -> None:
        self.store = store
        self.what = what
        self._add = add or store.add
        self._prune = prune
        self._prune_at = 0.0
        self.interval = interval
        self.max_pending = max_pending
        self.lost = 0
        self._on_lost = on_lost
        self.failing = False
        self._pending: deque[Mapping[str, Any]] = deque()
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._held: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="predictions", daemon=True)
        self._thread.start()

    def put(self, row: Mapping[str, Any]) -> None:
        """Take a row; never blocks, never fails. The oldest waiting row is lost where too many wait."""
        with self._guard:
            self._pending.append(row)
            self._bound()
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many rows are in memory only."""
        return len(self._pending)

    def flush(self) -> bool:
        """Write what is waiting; False where the store could not take it."""
        with self._writing:
            while True:
                with self._guard:
                    rows = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
                if not rows:
                    return True
                if not self._write(rows):
                    self._put_back(rows)
                    return False

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=15)
        if not self.flush():
            logger.warning("%s were not kept: %d are lost.", self.what, len(self._pending))
        with self._writing:
            if self._held is not None:
                self._held.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stopped.wait(self.interval)
            if not self.flush():
                self._stopped.wait(5 * self.interval)
                self._wake.set()
            elif self._prune is not None and time.monotonic() >= self._prune_at:
                self._forget(self._prune)

    def _forget(self, prune: Callable[[], object]) -> None:
        self._prune_at = time.monotonic() + PRUNE_SECONDS
        try:
            prune()
        except ImagoError as error:
            logger.warning("Old predictions were not forgotten: %s", error)

    def _write(self, rows: list[Mapping[str, Any]]) -> bool:
        try:
            self._add(rows)
            if self._held is None:
                self._held = self.store.hold()
        except ImagoError as error:
            if not self.failing:
                logger.warning("%s %s are kept in memory meanwhile.", error, self.what)
            self.failing = True
            return False
        if self.failing:
            logger.warning("The prediction store %s can be written again.", self.store.path)
        self.failing = False
        return True

    def _put_back(self, rows: list[Mapping[str, Any]]) -> None:
        with self._guard:
            self._pending.extendleft(reversed(rows))
            self._bound()

    def _bound(self) -> None:
        """Give up the oldest rows of too many."""
        over = max(len(self._pending) - self.max_pending, 0)
        for _ in range(over):
            self._pending.popleft()
        if over:
            self.lost += over
            self._on_lost(over)
