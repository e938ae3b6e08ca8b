"""A form is read as a stream, whatever pieces it comes in."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from imago.serving import upload
from imago.serving.refusal import Refusal
from imago.serving.upload import Take, read_pictures

HEAD = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a\xc3\xa9.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
)


async def asked(
    chunks: list[bytes],
    *,
    pause: float = 0.0,
    ends: bool = True,
    take: Take = lambda _: None,
    **limits: float,
) -> list[bytes]:
    async def messages() -> AsyncIterator[Message]:
        for chunk in chunks:
            await asyncio.sleep(pause)
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request" if ends else "http.disconnect", "body": b"", "more_body": False}

    source = messages()
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, source.__anext__)
    bounds = {"max_bytes": 1000, "max_body_bytes": 4000, "max_pictures": 1, "seconds": 5.0} | limits
    return await read_pictures(request, "image", take, **bounds)  # type: ignore[arg-type]


def ask(chunks: list[bytes], **how: Any) -> list[bytes]:
    return asyncio.run(asked(chunks, **how))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_the_bytes_are_the_same_in_whatever_pieces_they_come(step: int) -> None:
    picture = bytes(range(256)) + b"\r\n--bad\r\n--\r\n"
    form = HEAD + picture + b"\r\n--b--\r\n"
    assert ask([form[start : start + step] for start in range(0, len(form), step)]) == [picture]


def test_a_client_that_dawdles_is_cut_off() -> None:
    with pytest.raises(Refusal) as refused:
        ask([HEAD, b"x", b"x", b"x"], pause=0.1, seconds=0.15)
    assert (refused.value.status, refused.value.code) == (408, "too_slow")


def test_bytes_are_told_as_they_arrive() -> None:
    told: list[int] = []
    with pytest.raises(ClientDisconnect):
        ask([HEAD, b"x" * 10, b"x" * 20], ends=False, take=told.append)
    assert told == [len(HEAD), 10, 20]


def test_a_client_that_leaves_is_left() -> None:
    with pytest.raises(ClientDisconnect):
        ask([HEAD, b"x"], ends=False)


@pytest.mark.parametrize("chunks", [[b"x", b"\r\n--b--\r\n"], [b"x"], [b"x" * 2000]], ids=["whole", "broken", "large"])
def test_what_was_read_is_let_go_at_once(chunks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    forms: list[weakref.ref[upload._Form]] = []

    class Watched(upload._Form):
        def __init__(self, field: str, *, max_bytes: int, max_pictures: int) -> None:
            super().__init__(field, max_bytes=max_bytes, max_pictures=max_pictures)
            forms.append(weakref.ref(self))

    async def scene() -> None:
        with suppress(Refusal, ClientDisconnect):
            await asked([HEAD, *chunks], ends=chunks[-1].endswith(b"\r\n"))
        assert [form() for form in forms] == [None]

    monkeypatch.setattr(upload, "_Form", Watched)
    gc.disable()
    try:
        asyncio.run(scene())
    finally:
        gc.enable()


def test_small_pieces_are_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PIECE", 100)
    form = upload._Form("image", max_bytes=1000, max_pictures=1)
    parser = form.parser(b"b")
    for byte in HEAD + b"\r" * 450:
        parser.write(bytes([byte]))
    assert form.current is not None
    assert len(form.current) <= 5
    parser.write(b"\r\n--b--\r\n")
    assert form.close() == [b"\r" * 450]


def test_a_picture_is_bounded_by_itself() -> None:
    with pytest.raises(Refusal, match="at most 1,000 bytes"):
        ask([HEAD, b"x" * 600, b"x" * 600])


def test_a_form_is_bounded_whatever_it_holds() -> None:
    other = b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n'
    with pytest.raises(Refusal, match="at most 4,000 bytes") as refused:
        ask([other, *[b"x" * 1000] * 5])
    assert refused.value.status == 413


def test_parts_are_bounded_in_number() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="o"\r\n\r\n\r\n'
    with pytest.raises(Refusal) as refused:
        ask([part * 300], max_body_bytes=1_000_000)
    assert refused.value.code == "too_many_parts"
