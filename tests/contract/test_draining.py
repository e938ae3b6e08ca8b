"""What clients on their connections hear from a worker that is told to drain, over real sockets."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from imago.serving import worker
from imago.serving.worker import Draining, Server, configured
from tests.waiting import until
from tests.wire import Wire

ASK = b"GET / HTTP/1.1\r\nHost: moths\r\n\r\n"


async def answer(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"xx"})


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], None], threading.Thread]]:
    """A worker behind a door of its own: its address, what tells it to drain, and the thread that it runs in."""
    monkeypatch.setattr(gc, "freeze", lambda: None)  # this process is no worker
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 60)
    monkeypatch.setattr(worker, "HEAD_SECONDS", 60.0)
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    door = socket.create_server(("127.0.0.1", 0))
    app = Draining(answer)
    thread = threading.Thread(
        target=lambda: Server(configured(app, lifespan="off"), app, theirs, door, {}).run(sockets=[door])
    )
    thread.start()
    assert ours.recv(1) == b"R"

    def tell() -> None:
        ours.send(b"D")
        until(lambda: app.on, 10, "it drains")

    yield f"http://127.0.0.1:{door.getsockname()[1]}", tell, thread
    ours.close()
    thread.join(20)


def test_who_asks_a_moment_later_is_answered_and_told_to_connect_anew(
    drain: tuple[str, Callable[[], None], threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tell, thread = drain
    monkeypatch.setattr(worker, "LINGER_SECONDS", 60.0)
    looks, is_busy = [], Server._is_busy
    monkeypatch.setattr(Server, "_is_busy", lambda self, since: looks.append(since) or is_busy(self, since))
    wires = [Wire(url) for _ in range(3)]
    for wire in wires[:2]:
        wire.send(ASK)
        assert b"connection" not in wire.said(b"xx").lower()
    tell()
    for wire in wires:  # the last of them has asked nothing before
        seen = len(looks)
        until(lambda: len(looks) > seen + 1, 10, "it looks whether all have gone")  # noqa: B023 - called at once
        wire.send(ASK)
        assert b"\r\nconnection: close\r\n" in wire.everything().lower()
    thread.join(10)
    assert not thread.is_alive()  # nobody is left to wait for


def test_who_asks_nothing_more_is_not_waited_for_long(
    drain: tuple[str, Callable[[], None], threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tell, thread = drain
    monkeypatch.setattr(worker, "LINGER_SECONDS", 0.3)
    wire = Wire(url)
    wire.send(ASK)
    wire.said(b"xx")
    begun = time.monotonic()
    tell()
    thread.join(15)  # less than it waits at most
    assert not thread.is_alive()
    assert time.monotonic() - begun >= worker.LINGER_SECONDS
    assert wire.is_closed()
