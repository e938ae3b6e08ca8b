"""How many connections a worker holds, and for how long, over real sockets."""

import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from imago.home import ROOT
from imago.serving import worker
from imago.serving.worker import SPARE_FILES, Patient
from tests.endpoints import over_sockets
from tests.waiting import until
from tests.wire import Wire

ASK = b"GET / HTTP/1.1\r\nHost: moths\r\n\r\n"
MOST = 5
LARGE = 100_000_000  # bytes, more than sockets keep


class Slow:
    """An application that answers `/`, and anything else once it may, in its own words."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = 0  # for what is slow

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.asked += scope["path"] == "/slow"
        while scope["path"] == "/slow" and not self.may.is_set():
            await anyio.sleep(0.01)
        body = b"x" * (LARGE if scope["path"] == "/large" else 2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def slow() -> Iterator[Slow]:
    app = Slow()
    yield app
    app.may.set()


@pytest.fixture
def url(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Patient, "most", MOST)
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 60)
    monkeypatch.setattr(worker, "HEAD_SECONDS", 60.0)
    with over_sockets(slow) as address:
        yield address


def answered(wire: Wire) -> bool:
    """Ask on a connection that is kept; False where the other side has closed it."""
    return wire.send(ASK) and wire.said(b"\r\n\r\nxx").endswith(b"xx")


@contextmanager
def connections(url: str, count: int) -> Iterator[list[Wire]]:
    """So many connections, each of which was answered once, one after the other."""
    wires = [Wire(url) for _ in range(count)]
    assert all(answered(wire) for wire in wires)
    yield wires
    for wire in wires:
        wire.socket.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_beyond_the_limit_those_are_closed_that_have_been_idle_longest(url: str) -> None:
    closed = counted("imago_connections_over_limit_total", outcome="idle_closed")
    with connections(url, MOST) as wires:
        assert answered(wires[0])  # now the second is the one that has said nothing for longest
        with connections(url, 2):
            assert [wire.is_closed() for wire in wires[1:3]] == [True, True]
            assert answered(wires[0])
            assert all(answered(wire) for wire in wires[3:])
            assert counted("imago_connections") == MOST
    assert counted("imago_connections_over_limit_total", outcome="idle_closed") == closed + 2
    until(lambda: counted("imago_connections") == 0, 10, "all closed")


def test_connections_without_number_keep_nobody_from_being_answered(url: str) -> None:
    wires = []
    for _ in range(20):
        wires += [Wire(url) for _ in range(3 * MOST)]
        assert httpx.get(url, trust_env=False).text == "xx"
        assert counted("imago_connections") <= MOST + 1  # one may be about to end
    assert all(wire.is_closed() for wire in wires[: -3 * MOST])
    for wire in wires:
        wire.socket.close()


def test_who_sends_heads_without_end_gives_way_as_well(url: str) -> None:
    with connections(url, MOST) as wires:
        for wire in wires:
            wire.send(ASK[:20])
        with connections(url, MOST):
            assert all(wire.is_closed() for wire in wires)


def test_where_all_are_being_answered_a_new_one_is_refused_and_told_when_to_come_back(slow: Slow, url: str) -> None:
    refused = counted("imago_connections_over_limit_total", outcome="refused")
    with connections(url, MOST) as wires:
        for wire in wires:
            wire.send(ASK.replace(b"/ ", b"/slow "))
        over = Wire(url)
        answer = over.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert answer.headers["connection"] == "close"
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
        assert json.loads(answer.body)["error"]["request_id"] == answer.headers["x-request-id"]
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            httpx.get(url, trust_env=False).raise_for_status()
        assert counted("imago_connections_over_limit_total", outcome="refused") == refused + 2
        slow.may.set()
        assert all(wire.said(b"\r\n\r\nxx").startswith(b"HTTP/1.1 200 ") for wire in wires)
        with connections(url, 1):
            pass


def test_who_sends_its_body_slowly_gives_way_where_nobody_is_idle(
    slow: Slow, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SLOW_SECONDS", 0.0)
    closed = counted("imago_connections_over_limit_total", outcome="slow_closed")
    with connections(url, MOST) as wires:
        for wire in wires[1:]:
            wire.send(b"POST /slow HTTP/1.1\r\nHost: moths\r\nContent-Length: 9\r\n\r\nx")
        wires[0].send(b"POST /slow HTTP/1.1\r\nHost: moths\r\nContent-Length: 1\r\n\r\nx")  # sent whole, and waits
        until(lambda: slow.asked == MOST, 10, "all have asked")
        with connections(url, 1):
            until(lambda: sum(not wire.is_open() for wire in wires) == 1, 10, "one gives way")
            assert wires[0].is_open()
            assert counted("imago_connections_over_limit_total", outcome="slow_closed") == closed + 1
        slow.may.set()
        assert wires[0].said(b"\r\n\r\nxx").startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_is_kept_and_not_used_is_closed(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 0.3)
    with over_sockets(slow) as url, connections(url, 3) as wires:
        assert all(wire.is_closed() for wire in wires)
        until(lambda: counted("imago_connections") == 0, 10, "all closed")


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_who_does_not_read_its_answer_is_cut_off(slow: Slow, last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(worker, "ANSWER_SECONDS", 0.5)
    with over_sockets(slow) as url:
        wire = Wire(url)
        wire.send(b"GET /large HTTP/1.1\r\n" + last + b"\r\n")
        until(lambda: counted("imago_connections") == 1, 10, "it is answered")
        until(lambda: counted("imago_connections") == 0, 10, "it is cut off")
        assert 0 < len(wire.everything()) < LARGE


def test_who_reads_its_answer_slowly_is_given_the_time(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(worker, "KEEP_ALIVE_SECONDS", 0.2)
    with over_sockets(slow) as url:
        wire = Wire(url)
        wire.send(b"GET /large HTTP/1.1\r\n\r\n")
        begun = time.monotonic()
        said = 0
        while part := wire.socket.recv(65536):
            said += len(part)
            if time.monotonic() - begun < 1:
                time.sleep(0.01)  # the client is what is slow
        assert said > LARGE


SERVE = """
import os, resource, sys
from starlette.types import Receive, Scope, Send
from imago.serving.worker import Patient, bound_connections
from tests.endpoints import over_sockets

async def opens(scope: Scope, receive: Receive, send: Send) -> None:
    with open(os.devnull, "rb"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"xx"})

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
bound_connections(int(sys.argv[3]))
with over_sockets(opens) as url:
    print(Patient.most, resource.getrlimit(resource.RLIMIT_NOFILE)[0], url, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def serving(soft: int, hard: int, most: int) -> Iterator[tuple[int, int, str]]:
    """Serve in a process that may open so many files; gives how many connections and files it allows itself."""
    command = [sys.executable, "-c", SERVE, str(soft), str(hard), str(most)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        bound, files, url = process.stdout.readline().split()
        yield int(bound), int(files), url
        process.communicate("\n", timeout=30)


@pytest.mark.parametrize("most", [300, 10**9])
def test_files_do_not_run_out_where_a_process_may_open_few(most: int) -> None:
    with serving(200, 700, most) as (bound, files, url):
        assert (bound, files) == (min(most, 350), 700)
        wires = [Wire(url) for _ in range(600)]
        assert httpx.get(url, trust_env=False).text == "xx"
        until(lambda: sum(not wire.is_open() for wire in wires) >= 600 - bound, 20, "the oldest closed")
        assert httpx.get(url, trust_env=False).text == "xx"
        for wire in wires:
            wire.socket.close()


def test_a_process_allows_itself_the_files_that_its_connections_need() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 100 + SPARE_FILES:
        pytest.skip(f"no more than {hard} files may be opened here")
    with serving(64, hard, 100) as (bound, files, _):
        assert (bound, files) == (100, 100 + SPARE_FILES)
