"""Clients on loopback that cost little: connections kept open, requests written beforehand, answers hardly read."""

import asyncio
from collections.abc import Sequence
from itertools import count

HOST = "127.0.0.1"
_BOUNDARY = b"imago-bench"


def predict_request(picture: bytes) -> bytes:
    """Return the bytes of `POST /predict` with a JPEG."""
    form = (
        b"--%b\r\n"
        b'Content-Disposition: form-data; name="image"; filename="moth.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n"
    ) % (_BOUNDARY, picture, _BOUNDARY)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    return head.encode() + form


def press(port: int, messages: Sequence[bytes], *, clients: int, requests: int, seconds: float) -> list[float]:
    """Send so many requests in all, each client its next one once it is answered: the seconds that each took.

    Raises a group with RuntimeError at the first answer that is not 200, and TimeoutError after so many `seconds`.
    """
    return asyncio.run(asyncio.wait_for(_press(port, messages, clients, requests), seconds))


async def _press(port: int, messages: Sequence[bytes], clients: int, requests: int) -> list[float]:
    numbers, took = count(), list[float]()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(port, messages, numbers, requests, took))
    return took


async def _client(
    port: int, messages: Sequence[bytes], numbers: "count[int]", requests: int, took: list[float]
) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    clock = asyncio.get_running_loop().time
    try:
        while (number := next(numbers)) < requests:
            begun = clock()
            writer.write(messages[number % len(messages)])
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if head.split(b" ", 2)[1] != b"200":
                raise RuntimeError(f"a request was answered with {head.decode('latin-1')}{body[:500]!r}")
            took.append(clock() - begun)
    finally:
        writer.close()
