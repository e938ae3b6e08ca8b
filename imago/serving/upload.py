"""Reads what a client uploads, as a stream: every size is bounded before the bytes are kept."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from imago.serving.refusal import Refusal

MAX_PARTS = 256
MAX_JSON_BYTES = 65_536
PIECE = 65_536  # bytes from which on what follows is kept apart: all that grew in one would leave holes where it was

Take = Callable[[int], None]
"""Is told of so many bytes before they are kept, and raises Refusal where there is no room for them."""


async def read_pictures(
    request: Request, field: str, take: Take, *, max_bytes: int, max_body_bytes: int, max_pictures: int, seconds: float
) -> list[bytes]:
    """Return the pictures sent in a field of a multipart form, at least one. Raises Refusal."""
    form = _Form(field, max_bytes=max_bytes, max_pictures=max_pictures)
    parser = form.parser(_boundary(request, field))
    async with _Deadline(seconds):
        async for chunk in _bounded(request, take, max_body_bytes):
            _write(parser, chunk)
    return form.close()


async def read_json(request: Request, take: Take, *, seconds: float) -> dict[str, Any]:
    """Return the JSON object that is the request's body. Raises Refusal."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind and kind != b"application/json":
        raise Refusal(415, "not_json", "The body must be JSON, with `Content-Type: application/json`.")
    body = bytearray()
    async with _Deadline(seconds):
        async for chunk in _bounded(request, take, MAX_JSON_BYTES):
            body += chunk
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "malformed", "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise Refusal(400, "malformed", "The body is not a JSON object.")
    return value


class _Deadline:
    """Gives a client so many seconds to send its body."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self.timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self.timeout.__aexit__(*error)
        except TimeoutError as late:
            raise Refusal(408, "too_slow", f"The upload took more than {self.seconds:g} seconds.") from late


async def _bounded(request: Request, take: Take, max_bytes: int) -> Any:
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        take(len(chunk))
        yield chunk


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "too_many_bytes", f"The request is too large: at most {max_bytes:,} bytes are taken.")


def _boundary(request: Request, field: str) -> bytes:
    header = request.headers.get("content-type")
    kind, options = parse_options_header(header)
    how = f"send a multipart form (`multipart/form-data`) with the picture in the field `{field}`"
    if not header:
        raise Refusal(400, "malformed", f"The request says no content type: {how}.")
    if kind != b"multipart/form-data":
        raise Refusal(415, "not_multipart", f"The request is {kind.decode('latin-1')}: {how}.")
    if not options.get(b"boundary"):
        raise Refusal(400, "malformed", f"The form has no boundary: {how}.")
    return options[b"boundary"]


class _Form:
    """Takes the form apart while it arrives, keeping nothing but the pictures.

    It does not hold its parser, which holds it: a ring would keep the pictures until the next garbage collection.
    """

    def __init__(self, field: str, *, max_bytes: int, max_pictures: int) -> None:
        self.field, self.max_bytes, self.max_pictures = field, max_bytes, max_pictures
        self.pictures: list[bytes] = []
        self.others: list[str] = []
        self.parts = 0
        self.ended = False
        self.current: list[bytearray] | None = None  # the pieces of a picture
        self.size = 0
        self.header, self.value, self.disposition = b"", b"", b""

    def parser(self, boundary: bytes) -> MultipartParser:
        """Return what takes the form apart and tells this of its parts. Raises Refusal."""
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_part_data": self._data,
                    "on_part_end": self._part_end,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from error

    def close(self) -> list[bytes]:
        if not self.ended:
            raise Refusal(400, "malformed", "The form breaks off before its last boundary.")
        if not self.pictures:
            found = f"; it has {', '.join(repr(name) for name in self.others[:8])}" if self.others else ""
            raise Refusal(400, "missing_field", f"The form has no field `{self.field}`{found}.")
        return self.pictures

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise Refusal(413, "too_many_parts", f"The form has more than {MAX_PARTS} parts.")
        self.current = None
        self.disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = self.value
        self.header, self.value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition.decode("latin-1"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != self.field:
            self.others.append(name[:40])
            return
        if len(self.pictures) >= self.max_pictures:
            if self.max_pictures == 1:
                instead = f"The field `{self.field}` holds several pictures; use /predict_batch for them."
                raise Refusal(400, "too_many_pictures", instead)
            raise Refusal(413, "too_many_pictures", f"A request takes at most {self.max_pictures} pictures.")
        self.current, self.size = [], 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self.current is None:
            return
        self.size += end - start
        if self.size > self.max_bytes:
            raise Refusal(413, "too_many_bytes", f"A picture may have at most {self.max_bytes:,} bytes.")
        if self.current and len(self.current[-1]) < PIECE:
            self.current[-1] += data[start:end]
        else:
            self.current.append(bytearray(data[start:end]))

    def _part_end(self) -> None:
        if self.current is not None:
            self.pictures.append(b"".join(self.current))  # one at a time: no more than one picture is there twice
            self.current = None

    def _end(self) -> None:
        self.ended = True


def _write(parser: MultipartParser, chunk: bytes) -> None:
    try:
        parser.write(chunk)
    except FormParserError as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> Refusal:
    return Refusal(400, "malformed", f"The form cannot be read: {str(error).rstrip('.')}.")
