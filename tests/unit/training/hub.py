"""A made-up model hub on loopback."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import Handler, serving


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    """Serve files, by path, as the hub does; yield the address."""

    class Hub(Handler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            body = files.get(self.path)
            etag = hashlib.sha256(body or b"").hexdigest()
            self.reply(404 if body is None else 200, body or b"", X_Repo_Commit="0" * 40, ETag=f'"{etag}"')

    with serving(Hub) as address:
        yield address
