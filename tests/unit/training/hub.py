"""A made-up model hub on loopback, which can be told to misbehave."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.loopback import Handler, serving


@dataclass
class Behaviour:
    """What the hub does wrong, and what it was asked: the method and the Range, request by request."""

    statuses: list[tuple[str, int]] = field(default_factory=list)  # a method, and what it is answered once, in order
    breaks: int = 0  # so many downloads break off half way
    ranges: bool = True
    says_length: bool = True
    checksum: str = ""  # said instead of the right one
    asked: list[tuple[str, str]] = field(default_factory=list)

    def downloads(self) -> list[str]:
        return [wanted for method, wanted in self.asked if method == "GET"]


@contextmanager
def served(files: Mapping[str, bytes], behaviour: Behaviour | None = None) -> Iterator[str]:
    """Serve files, by path, as the hub does; yield the address."""
    does = behaviour or Behaviour()

    class Hub(Handler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            does.asked.append((self.command, self.headers.get("Range", "")))
            if does.statuses and does.statuses[0][0] == self.command:
                return self.reply(does.statuses.pop(0)[1])
            body = files.get(self.path)
            if body is None:
                return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit="0" * 40)
            etag = does.checksum or hashlib.sha256(body).hexdigest()
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
            part = body[first:] if does.ranges else body
            self.send_response(206 if first and does.ranges else 200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{etag}"')
            if does.says_length:
                self.send_header("X-Linked-Size", str(len(body)))
                self.send_header("Content-Length", str(len(part)))
            if first and does.ranges:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "GET":
                broken = does.breaks > 0
                does.breaks -= broken
                self.wfile.write(part[: len(part) // 2] if broken else part)
            self.close_connection = True
            return None

    with serving(Hub) as address:
        yield address
