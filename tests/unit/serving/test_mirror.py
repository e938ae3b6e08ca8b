"""What an endpoint asks a shadow: after its own answer, at nobody's cost, whatever the shadow is or does."""

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from imago.monitoring.prediction_store import Mirrored, PredictionStore
from imago.serving import mirror, shadow
from imago.serving.app import Application
from imago.serving.metrics import Metrics
from imago.serving.mirror import Mirror
from imago.serving.runtime import Runtime
from imago.serving.settings import PROBE_HEADER, ServingSettings
from imago.serving.shadow_note import ShadowNote
from tests.endpoints import listening
from tests.packages import make_package, picture_bytes
from tests.unit.serving.malformed import BAD
from tests.waiting import until

KEY = "a shadow's own"
INFO = b'{"model": {"name": "moths", "version": "8"}}'


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


@pytest.fixture(scope="module")
def confused(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A model that takes each colour for the next one."""
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "confused", confused=True, reject_threshold=1.0))


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path / "predictions.sqlite")


class Champion:
    """Version 7, whose shadow is told by `tell`."""

    def __init__(self, runtime: Runtime, store: PredictionStore, **options: Any) -> None:
        self.store = store
        settings = ServingSettings(predictions=store.path, shadow=shadow.note_path("moths"), probe_key="probe")
        self.application = Application(runtime, settings, Metrics(CollectorRegistry()), version="7")
        assert self.application.mirror is not None
        self.mirror: Mirror = self.application.mirror
        for name, value in options.items():
            setattr(self.mirror, name, value)
        self.client = TestClient(self.application)

    def tell(self, port: int, *, share: float = 1.0, champion: str = "7", key: str = KEY) -> None:
        note = ShadowNote(model="moths", champion=champion, version="8", share=share, port=port, key=key)
        shadow.write_note("moths", note)
        self.look()

    def look(self) -> None:
        """Let it see the note at once, and not only after a second."""
        self.mirror._look_at = 0.0

    def predict(self, label: str = "red", **headers: str) -> dict[str, Any]:
        response = self.client.post("/predict", files={"image": picture_bytes(label)}, headers=headers)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        assert body["model"]["version"] == "7"
        assert body["predictions"][0]["label"] == label
        return body

    def kept(self, count: int) -> list[Mirrored]:
        """Wait for so many rows of the shadow, and return them."""

        def rows() -> list[Mirrored]:
            assert self.application.writer is not None
            self.application.writer.flush()
            found = self.asked()
            return found if len(found) == count else []

        return until(rows, 20, lambda: f"{self.asked()}")

    def all_kept(self) -> list[Mirrored]:
        """Let what waits be done with, end, and return every row of the shadow."""
        until(lambda: not self.mirror._waiting, 20, "pictures wait still")
        self.mirror.close()
        assert self.mirror._thread is not None
        self.mirror._thread.join(20)
        for writer in (self.application.writer, self.mirror.writer):
            assert writer is not None
            writer.flush()
        return self.asked()

    def asked(self) -> list[Mirrored]:
        return self.store.mirrored("moths", "7", "8", most=100)

    def counted(self, outcome: str) -> float:
        found = self.application.metrics.registry.get_sample_value(
            "imago_shadow_requests_total", {"version": "8", "outcome": outcome}
        )
        return found or 0.0


@pytest.fixture
def champion(
    runtime: Runtime, store: PredictionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Champion]:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    one = Champion(runtime, store, answer_seconds=5.0, longest_pause=0.01)
    yield one
    one.application.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def answering(predict: Callable[[], tuple[int, bytes]], info: bytes = INFO) -> Iterator[int]:
    """A shadow that answers `/predict` and `/info` as it is told; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, info)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*predict())

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_a_shadow_says_is_kept_beside_the_answer_that_was_given(champion: Champion, confused: Runtime) -> None:
    with listening(confused, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        given = champion.predict("red")
        (row,) = champion.kept(1)
    assert (row.label, row.rejected, row.failure, row.feedback) == ("red", False, None, None)
    assert row.shadow_label not in {"red", None}
    assert row.shadow_rejected
    assert row.seconds is not None
    assert row.shadow_seconds is not None
    assert 0 < row.seconds < 5
    assert 0 < row.shadow_seconds < 5
    assert champion.counted("answered") == 1
    assert champion.store.count() == 1  # the client's
    assert champion.store.feedback(given["prediction_id"], "red", model="moths")
    assert champion.kept(1)[0].feedback == "red"


def test_the_pictures_of_a_batch_are_mirrored_one_by_one_and_the_unreadable_are_not(
    champion: Champion, runtime: Runtime
) -> None:
    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        pictures = [picture_bytes("red"), b"nothing", picture_bytes("blue")]
        body = champion.client.post("/predict_batch", files=[("images", one) for one in pictures]).json()
        rows = champion.kept(2)
    assert [len(one) for one in body["results"]] == [5, 1, 5]
    assert sorted((row.label, row.shadow_label) for row in rows) == [("blue", "blue"), ("red", "red")]


def test_only_what_is_kept_is_mirrored(champion: Champion, runtime: Runtime) -> None:
    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        champion.predict("red", **{PROBE_HEADER: "golden", "X-API-Key": "probe"})
        make, _, _ = BAD["truncated png"]
        champion.client.post("/predict", files={"image": make()})
        champion.predict("blue")
        (row,) = champion.kept(1)
    assert row.label == "blue"
    assert champion.counted("answered") == 1


def test_the_share_is_kept_to(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Mirror, "_take", lambda _, chosen: asked.extend(one.prediction_id for one in chosen))
    champion.tell(1, share=0.25)
    for number in range(1000):
        prediction_id = f"{number * 2**32 // 1000:08x}{'0' * 24}"
        task = champion.mirror.after([mirror.Asked(b"", prediction_id, time, 0.0)])  # type: ignore[arg-type]
        if task is not None:
            task.func(*task.args)
    assert len(asked) == 250
    champion.tell(1, share=1.0)
    assert champion.mirror.after([mirror.Asked(b"", "f" * 32, time, 0.0)]) is not None  # type: ignore[arg-type]


def test_without_a_note_or_with_one_for_another_version_nobody_is_asked(champion: Champion) -> None:
    champion.predict()
    champion.tell(1, champion="6")
    champion.predict()
    shadow.note_path("moths").write_text("no note")
    champion.look()
    champion.predict()
    shadow.note_path("moths").unlink()
    champion.look()
    champion.predict()
    assert champion.mirror.writer is None  # nor is there a thread for it


def test_a_shadow_is_told_and_taken_back_while_it_serves(champion: Champion, runtime: Runtime) -> None:
    champion.predict()
    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        champion.predict()
        champion.kept(1)
        shadow.note_path("moths").unlink()
        champion.look()
        champion.predict()
        champion.tell(port_of(url))
        champion.predict()
        champion.kept(2)
    assert champion.store.count() == 4


@pytest.mark.parametrize("then", ["nobody", "another version", "itself on another port"])
def test_a_shadow_that_is_ended_while_it_is_asked_has_not_failed(
    champion: Champion, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    asked: list[bool] = []

    def ending() -> tuple[int, bytes]:
        asked.append(True)
        note = shadow.read_note("moths")
        assert note is not None
        match then:
            case "nobody":
                shadow.note_path("moths").unlink()
            case "another version":
                shadow.write_note("moths", note.model_copy(update={"version": "9"}))
            case _:
                shadow.write_note("moths", note.model_copy(update={"port": 1}))
        return 503, b""

    with answering(ending) as port:
        champion.tell(port)
        champion.predict()
        until(lambda: asked, 20, "it was not asked")
        assert champion.all_kept() == []
    assert champion.counted("refused") == 0
    assert "gave no answer" not in caplog.text


def test_what_waits_for_a_shadow_that_is_ended_is_asked_of_nobody(champion: Champion) -> None:
    free, asked = threading.Event(), []
    answer = (
        b'{"prediction_id": "1", "model": {"name": "moths", "version": "8"}, "rejected": false, "reason": null, '
        b'"predictions": [{"label": "blue", "probability": 1.0}]}'
    )

    def ending() -> tuple[int, bytes]:
        asked.append(True)
        free.wait(30)
        return 200, answer

    with answering(ending) as port:
        champion.tell(port)
        for _ in range(4):
            champion.predict()
        until(lambda: asked, 20, "it was not asked")
        shadow.note_path("moths").unlink()
        free.set()
        (row,) = champion.all_kept()  # what it did answer counts
    assert (row.shadow_label, len(asked)) == ("blue", 1)


def test_a_slow_shadow_costs_no_answer_its_time_and_what_does_not_fit_is_dropped(champion: Champion) -> None:
    free = threading.Event()

    def slow() -> tuple[int, bytes]:
        free.wait(30)
        return 500, b""

    with answering(slow) as port:
        champion.tell(port)
        for _ in range(mirror.MAX_WAITING + 10):
            champion.predict()
        assert not free.is_set()  # all were answered, and the shadow has not answered one
        dropped = champion.counted("dropped")
        free.set()
    assert dropped in {9.0, 10.0}  # one may be in the thread's hands


def test_pictures_that_wait_are_bounded_in_bytes(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def slow() -> tuple[int, bytes]:
        free.wait(30)
        return 500, b""

    monkeypatch.setattr(mirror, "MAX_WAITING_BYTES", 3 * len(picture_bytes("red")))
    with answering(slow) as port:
        champion.tell(port)
        for _ in range(10):
            champion.predict()
        assert champion.counted("dropped") in {6.0, 7.0}
        free.set()


@pytest.mark.parametrize(
    ("status", "content", "failure"),
    [
        (200, b"", "nonsense"),
        (200, b"\xff\xfe", "nonsense"),
        (200, b"[" * 100_000, "nonsense"),
        (200, b'{"predictions": []}', "nonsense"),
        (200, b"x" * 1_000_000, "nonsense"),
        (
            200,
            b'{"prediction_id": "1", "model": {"name": "moths", "version": "9"}, "rejected": false, "reason": null, '
            b'"predictions": [{"label": "red", "probability": 1.0}]}',
            "nonsense",
        ),
        (404, b"{}", "refused"),
        (500, b"<html>", "refused"),
        (503, b"", "refused"),
    ],
)
def test_a_shadow_that_answers_nonsense_ends_in_a_counter_and_a_row(
    champion: Champion, status: int, content: bytes, failure: str
) -> None:
    with answering(lambda: (status, content)) as port:
        champion.tell(port)
        champion.predict()
        champion.predict()
        rows = champion.kept(2)
    assert [(row.failure, row.shadow_label) for row in rows] == [(failure, None)] * 2
    assert champion.counted(failure) == 2


def test_a_shadow_that_is_gone_ends_in_a_counter_and_is_asked_again_once_it_is_back(
    champion: Champion, runtime: Runtime
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    champion.tell(port)
    champion.predict()
    champion.predict()
    assert [row.failure for row in champion.kept(2)] == ["unreachable"] * 2
    assert champion.counted("unreachable") == 2
    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        champion.predict()
        assert sorted(str(row.shadow_label) for row in champion.kept(3)) == ["None", "None", "red"]


def test_a_shadow_that_does_not_answer_in_time_is_given_up(champion: Champion) -> None:
    free = threading.Event()

    def never() -> tuple[int, bytes]:
        free.wait(30)
        return 200, b"{}"

    champion.mirror.answer_seconds = 0.2
    with answering(never) as port:
        champion.tell(port)
        champion.predict()
        (row,) = champion.kept(1)
        free.set()
    assert row.failure == "unreachable"


@pytest.mark.parametrize(
    "info", [INFO.replace(b"8", b"9"), b"", b"<html>", b"\xff", b"[]", b'{"model": 8}', b"[" * 100_000, b"x" * 10**6]
)
def test_no_picture_is_sent_to_who_has_taken_its_port(champion: Champion, info: bytes) -> None:
    asked: list[bool] = []

    def stranger() -> tuple[int, bytes]:
        asked.append(True)
        return 200, b"{}"

    with answering(stranger, info) as port:
        champion.tell(port)
        champion.predict()
        (row,) = champion.kept(1)
    assert (row.failure, asked) == ("unreachable", [])


def test_a_store_that_cannot_be_written_costs_no_answer(champion: Champion, runtime: Runtime) -> None:
    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        champion.store.path.mkdir()
        champion.predict()
        until(lambda: champion.counted("answered") == 1, 20, "it was not asked")
        champion.predict()
        champion.store.path.rmdir()
        champion.kept(2)


def test_what_a_shadow_said_and_was_lost_is_no_lost_prediction(champion: Champion, runtime: Runtime) -> None:
    def count(name: str) -> float | None:
        return champion.application.metrics.registry.get_sample_value(name)

    with listening(runtime, ServingSettings(api_key=KEY), version="8") as url:
        champion.tell(port_of(url))
        champion.predict()
        champion.kept(1)
        with sqlite3.connect(champion.store.path) as connection:  # predictions can be kept, and its answers not
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON shadows BEGIN SELECT RAISE(ABORT, 'full'); END")
        writer = champion.mirror.writer
        assert writer is not None
        writer.max_pending = 2
        for asked in range(3):
            champion.predict()
            until(lambda: champion.counted("answered") == asked + 2, 20, "it was not asked")  # noqa: B023 - at once
        until(lambda: not writer.flush() and writer.lost == 1, 20, "none is lost")
        degraded = champion.client.get("/readyz").json()["degraded"]
    assert [part["part"] for part in degraded] == ["shadow"]
    assert "2 wait in memory, 1 are lost" in degraded[0]["message"]
    assert (count("imago_shadow_answers_lost_total"), count("imago_predictions_lost_total")) == (1, 0)


def test_an_endpoint_that_keeps_nothing_mirrors_nothing(runtime: Runtime, tmp_path: Path) -> None:
    settings = ServingSettings(shadow=tmp_path / "note.json")
    application = Application(runtime, settings, Metrics(CollectorRegistry()), version="7")
    assert application.mirror is None
    application.close()


def test_the_end_does_not_wait_for_a_shadow(runtime: Runtime, store: PredictionStore, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    one, free = Champion(runtime, store, answer_seconds=30.0), threading.Event()

    def never() -> tuple[int, bytes]:
        free.wait(30)
        return 200, b"{}"

    with answering(never) as port:
        one.tell(port)
        one.predict()
        begun = time.perf_counter()
        one.application.close()
        taken = time.perf_counter() - begun
        free.set()
    assert taken < 15
    assert store.count() == 1
