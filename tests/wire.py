"""A client that says on a socket what it likes."""

import json
import select
import socket
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes
    """What came after it, until the connection was closed."""

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Wire:
    """A connection on which anything may be sent."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def send(self, data: bytes) -> bool:
        """Send; False where the other side has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def flood(self, data: bytes, *, most: int) -> int:
        """Send the same again and again until the other side closes; return how many bytes were sent."""
        sent = 0
        while sent < most and self.send(data):
            sent += len(data)
        return sent

    def is_closed(self) -> bool:
        """Tell whether the other side has closed the connection, and said nothing more."""
        try:
            return self.socket.recv(65536) == b""
        except ConnectionError:
            return True

    def is_open(self) -> bool:
        """Tell whether the other side has neither closed the connection nor said anything, without waiting for it."""
        return not select.select([self.socket], [], [], 0)[0]

    def said(self, end: bytes) -> bytes:
        """Return what is said up to some last words, or less where the connection is closed before."""
        said = b""
        try:
            while not said.endswith(end) and (part := self.socket.recv(65536)):
                said += part
        except ConnectionError:
            pass
        return said

    def everything(self) -> bytes:
        """Return what is said until the connection is closed."""
        said = b""
        try:
            while part := self.socket.recv(65536):
                said += part
        except ConnectionError:
            pass
        return said

    def answer(self) -> Answer:
        """Return the first answer and all that follows it; the other side must close the connection."""
        head, _, rest = self.everything().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        return Answer(int(first.split()[1]), headers, rest[:length], rest[length:])
