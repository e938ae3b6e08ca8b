"""What a client may do on the wire, over real sockets and the HTTP server that a worker runs."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imago.serving import key_file, worker
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import application, listening, over_sockets
from tests.packages import make_package, picture_bytes
from tests.waiting import until
from tests.wire import Answer, Wire

SECONDS = 0.6
"""What a client gets to send a body, or a head."""
LUNA = picture_bytes("red")
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
FORM = PART + LUNA + b"\r\n--b--\r\n"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
TAKEN = {
    "/predict": {"POST"}, "/predict_batch": {"POST"}, "/explain": {"POST"}, "/feedback": {"POST"},
    "/info": {"GET", "HEAD"}, "/metrics": {"GET", "HEAD"}, "/ui": {"GET", "HEAD"}, "/docs.json": {"GET", "HEAD"},
    "/livez": {"GET", "HEAD"}, "/readyz": {"GET", "HEAD"}, "/reports": {"GET", "HEAD"},
}  # fmt: skip


def head(path: str = "/predict", *lines: str, method: str = "POST", length: int | None = None) -> bytes:
    """Return the head of a request for a form, after which the connection is closed."""
    said = [f"{method} {path} HTTP/1.1", "Host: moths", "Connection: close", *lines]
    said += ["Content-Type: multipart/form-data; boundary=b"] if method == "POST" else []
    said += [] if length is None else [f"Content-Length: {length}"]
    return ("\r\n".join(said) + "\r\n\r\n").encode("latin-1")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


@pytest.fixture(scope="module")
def url(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shelf = tmp_path_factory.mktemp("shelf")
    (shelf / "MODEL_CARD.md").write_text("# moths")
    (shelf.parent / "secret.txt").write_text("root:x:0:0")
    settings = ServingSettings(upload_seconds=SECONDS, max_upload_bytes=100_000, shelf=shelf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "HEAD_SECONDS", SECONDS)
        with listening(runtime, settings) as address:
            yield address


@pytest.fixture
def wire(url: str) -> Iterator[Wire]:
    """A connection; whatever a test has done on it, the next picture is answered."""
    wire = Wire(url)
    yield wire
    wire.socket.close()
    other = Wire(url)
    other.send(head(length=len(FORM)) + FORM)
    assert other.answer().status == 200
    other.socket.close()


def part(name: str, content: bytes = LUNA, file: str = "a.png") -> bytes:
    line = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
    return f"--b\r\n{line}\r\n\r\n".encode() + content + b"\r\n"


@pytest.mark.parametrize(
    ("path", "parts", "status", "code"),
    [
        ("/predict", b"", 400, "missing_field"),
        ("/predict", part("picture"), 400, "missing_field"),
        ("/predict_batch", part("image"), 400, "missing_field"),
        ("/predict", part("image") + part("image"), 400, "too_many_pictures"),
        ("/explain", part("image") + part("image"), 400, "too_many_pictures"),
        ("/predict_batch", part("images") * 65, 413, "too_many_pictures"),
        ("/predict", part("image", file="x" * 10_000), 400, "malformed"),
        ("/predict", part("image", file="x" * 1_000_000), 413, "too_many_bytes"),
        ("/predict", part("image", b""), 400, "empty_picture"),
        ("/predict", part("image", LUNA[:200]), 422, "undecodable"),
    ],
)
def test_a_form_that_is_not_what_is_asked_for_is_refused(
    wire: Wire, path: str, parts: bytes, status: int, code: str
) -> None:
    body = parts + b"--b--\r\n"
    wire.send(head(path, length=len(body)) + body)
    answer = wire.answer()
    assert (answer.status, answer.code) == (status, code)


def test_a_file_name_of_any_sort_is_no_matter(wire: Wire) -> None:
    body = part("image", file="../../etc/passwd\x00" + "ä" * 200 + "%00.php") + b"--b--\r\n"
    wire.send(head(length=len(body)) + body)
    assert wire.answer().status == 200


def test_a_body_that_comes_too_slowly_is_ended(wire: Wire) -> None:
    wire.send(head(length=len(FORM)))
    begun = time.monotonic()
    for byte in FORM[:200]:
        if not wire.send(bytes([byte])) or time.monotonic() - begun > SECONDS:
            break
        time.sleep(0.02)  # the client is what is slow
    answer = wire.answer()
    assert (answer.status, answer.code) == (408, "too_slow")
    assert time.monotonic() - begun < 10 * SECONDS


def test_a_body_shorter_than_announced_is_waited_for_and_given_up(wire: Wire) -> None:
    wire.send(head(length=len(FORM) + 500) + FORM)
    answer = wire.answer()
    assert (answer.status, answer.code) == (408, "too_slow")


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_let_go(wire: Wire) -> None:
    wire.send(head(length=len(FORM)) + FORM[:100])
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.everything() == b""


def test_bodies_that_do_not_come_take_nobodys_place(runtime: Runtime) -> None:
    with application(runtime, ServingSettings(max_waiting=2)) as app, over_sockets(app) as url:
        slow = [Wire(url) for _ in range(10)]
        for number, one in enumerate(slow):
            one.send(head(("/predict", "/explain")[number % 2], length=len(FORM)) + FORM[:100])
        until(lambda: app.bodies.held == 10 * 100, 20, "not all bodies have begun")
        for path in ("/predict", "/explain"):
            other = Wire(url)
            other.send(head(path, length=len(FORM)) + FORM)
            assert other.answer().status == 200
        for one in slow:
            one.send(FORM[100:])
            assert one.answer().status == 200
        assert app.bodies.held == 0


def test_bodies_are_bounded_in_what_they_hold_together(runtime: Runtime) -> None:
    settings = ServingSettings(max_upload_bytes=60_000, max_held_bytes=400_000)
    half = part("images", b"x" * 50_000) * 3
    with application(runtime, settings) as app, over_sockets(app) as url:
        holding = [Wire(url) for _ in range(2)]
        for one in holding:
            one.send(head("/predict_batch", length=200_000) + half)
        until(lambda: app.bodies.held == 2 * len(half), 20, "not all bodies have begun")
        third = Wire(url)
        third.send(head("/predict_batch", length=200_000) + half)
        answer = third.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert app.bodies.held == 2 * len(half)
        for one in holding:
            one.socket.close()
        until(lambda: app.bodies.held == 0, 20, "what nobody sends any more is held still")


def test_a_body_longer_than_announced_is_refused_and_what_is_over_is_no_request(wire: Wire) -> None:
    over = b"GET /metrics HTTP/1.1\r\nHost: moths\r\n\r\n"
    wire.send(head(length=len(FORM) - 20) + FORM + over)
    answer = wire.answer()
    assert (answer.status, answer.code, answer.rest) == (400, "malformed", b"")


def test_a_body_longer_than_announced_ends_a_connection_that_is_kept(wire: Wire) -> None:
    kept = head(length=len(FORM) - 20).replace(b"Connection: close\r\n", b"")
    wire.send(kept + FORM + b"nonsense\r\n\r\n")
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "malformed")
    assert answer.rest.startswith(b"HTTP/1.1 400 ") or not answer.rest


def test_chunks_without_end_that_come_slowly_are_ended(wire: Wire) -> None:
    wire.send(head("/predict", "Transfer-Encoding: chunked") + b"%x\r\n" % len(PART) + PART + b"\r\n")
    answer = wire.answer()
    assert (answer.status, answer.code) == (408, "too_slow")


def test_chunks_without_end_that_come_fast_are_refused_and_the_connection_is_closed(wire: Wire) -> None:
    kept = head("/predict", "Transfer-Encoding: chunked").replace(b"Connection: close\r\n", b"")
    wire.send(kept + b"%x\r\n" % len(PART) + PART + b"\r\n")
    begun = time.monotonic()
    sent = wire.flood(b"2000\r\n" + b"x" * 0x2000 + b"\r\n", most=10**12)
    assert time.monotonic() - begun < 20 * SECONDS
    assert sent > 100_000
    assert wire.everything()[:12] in {b"HTTP/1.1 413", b""}  # a client that never listens may miss it


def test_a_client_hears_why_it_is_refused_although_it_goes_on_sending(wire: Wire) -> None:
    kept = head("/predict", "Transfer-Encoding: chunked").replace(b"Connection: close\r\n", b"")
    wire.send(kept + b"%x\r\n" % len(PART) + PART + b"\r\n")
    for _ in range(40):
        wire.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
    wire.send(b"0\r\n\r\n")
    answer = wire.answer()
    assert (answer.status, answer.code, answer.rest) == (413, "too_many_bytes", b"")


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "one header": (b"GET /info HTTP/1.1\r\nX-Long: ", b"x" * 16384),
    "many headers": (b"GET /info HTTP/1.1\r\n", b"X-More: yes\r\n" * 1024),
    "a path": (b"GET /", b"x" * 16384),
    "trailers": (
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        b"4\r\n--b\r\r\n0\r\n",
        b"X-More: yes\r\n" * 1024,
    ),
    "an extension of a chunk": (
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        b"4;a=",
        b"x" * 16384,
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_cut_off_before_it_is_kept(wire: Wire, what: str) -> None:
    begin, more = ENDLESS[what]
    wire.send(begin)
    assert wire.flood(more, most=10**9) < 20_000_000  # what lies in the sockets' buffers
    assert wire.everything()[:12] in {b"HTTP/1.1 400", b""}


@pytest.mark.parametrize("begun", [b"", b"GET /info HTT", b"GET /info HTTP/1.1\r\nX-A: b\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(wire: Wire, begun: bytes) -> None:
    wire.send(begun)
    assert wire.is_closed()


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(wire: Wire) -> None:
    begun = time.monotonic()
    for byte in head("/info", "X-Slow: " + "x" * 10_000, method="GET"):
        if not wire.send(bytes([byte])):
            break
        time.sleep(0.01)  # the client is what is slow
    assert time.monotonic() - begun < 20 * SECONDS
    assert wire.is_closed()


def test_a_connection_answers_many_requests_also_when_they_come_at_once(wire: Wire) -> None:
    kept = head(length=len(FORM)).replace(b"Connection: close\r\n", b"")
    wire.send((kept + FORM) * 5 + head("/livez", method="GET"))
    answers = wire.everything()
    assert answers.count(b"HTTP/1.1 200 OK") == 6
    assert answers.count(b'"label":"red"') == 5


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x00\x00\x00\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: moths\r\n\r\n",
        b"GET http://moths HTTP/1.1\r\nHost: moths\r\n\r\n",
        head(length=-5),
        head("/predict", "Content-Length: 5", length=6),
        head("/predict", "Transfer-Encoding: chunked", length=6) + b"0\r\n\r\n",
        head("/predict", "Transfer-Encoding: chunked") + b"zz\r\n",
        head("/predict", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n",
        head("/predict", "Content-Length: 99999999999999999999999"),
    ],
)
def test_what_is_not_http_is_answered_with_400_and_the_connection_closed(wire: Wire, request_: bytes) -> None:
    wire.send(request_)
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "malformed")
    assert answer.headers["content-type"] == "application/json"


def test_a_websocket_is_not_opened(wire: Wire) -> None:
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    wire.send(head("/predict", *upgrade, method="GET").replace(b"Connection: close", b"Connection: Upgrade"))
    assert wire.everything()[:12] == b"HTTP/1.1 405"


@pytest.mark.parametrize("path", TAKEN)
def test_every_other_method_is_refused_and_the_right_ones_are_told(url: str, path: str) -> None:
    for method in METHODS:
        if method in TAKEN[path]:
            continue
        wire = Wire(url)
        wire.send(head(path, method=method) if method != "POST" else head(path, length=0))
        answer = wire.answer()
        assert answer.status == 405, method
        assert {one.strip() for one in answer.headers["allow"].split(",")} == TAKEN[path]
        assert method == "HEAD" or answer.code == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/predict/", "//predict", "/PREDICT", "/ui/", "/ui/nothing.js", "/ui/index.html",
        "/../../../../etc/passwd", "/ui/../../../../../etc/passwd", "/ui/%2e%2e/%2e%2e/etc/passwd",
        "/ui/..%2f..%2fapp.py", "/ui/%00", "/ui/page.js%00.css", "/ui/..\\..\\app.py", "/reports/../secret.txt",
        "/reports/%2e%2e%2fsecret.txt", "/reports/..%5csecret.txt", "/reports//etc/passwd", "/reports/%252e%252e/etc",
        "/reports/MODEL_CARD.md/", "/reports/.", "/reports/..", "/.git/config", "/%ff%fe", "/" + "x" * 20_000,
    ],
)  # fmt: skip
def test_there_is_nothing_else_to_be_had(wire: Wire, path: str) -> None:
    wire.send(head(path, method="GET"))
    answer = wire.answer()
    assert (answer.status, answer.code) == (404, "not_found")
    assert b"root:" not in answer.body


def test_keys_absent_wrong_and_revoked_are_refused_alike(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path))
    phone, farm = key_file.add("phone")[1], key_file.add("farm")[1]

    def ask(url: str, *lines: str) -> Answer:
        wire = Wire(url)
        wire.send(head("/info", *lines, method="GET"))
        return wire.answer()

    with listening(runtime, ServingSettings(keys=key_file.path())) as url:
        assert ask(url, f"X-API-Key: {phone}").status == 200
        assert ask(url, f"Authorization: Bearer {farm}").status == 200
        key_file.revoke("phone")
        until(lambda: ask(url, f"X-API-Key: {phone}").status == 401, 10, "the revoked key noticed")
        wrong: list[Callable[[], Any]] = [
            lambda: ask(url, f"X-API-Key: {phone}"),
            lambda: ask(url, f"X-API-Key: {farm[:-1]}"),
            lambda: ask(url, f"X-API-Key: {farm}x"),
            lambda: ask(url, "X-API-Key: " + "x" * 30_000),
            lambda: ask(url, "X-API-Key: \xff\x80"),
        ]
        answers = [one() for one in wrong]
        assert {(answer.status, answer.code) for answer in answers} == {(401, "wrong_key")}
        assert len({json.loads(answer.body)["error"]["message"] for answer in answers}) == 1
        for none in ((), ("X-API-Key:",), ("Authorization: Basic eDp5",), ("Authorization: Bearer",)):
            assert (ask(url, *none).status, ask(url, *none).code) == (401, "no_key")
        assert ask(url, f"X-API-Key: {farm}").status == 200
