"""The one name of a request: in the header and the errors of its answer, and in every line that is logged of it."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from uuid import uuid4

HEADER = "X-Request-ID"
_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER = HEADER.lower().encode()

current: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, empty where there is none."""


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that a client or a proxy has given a request, where nothing can be hidden in it, or a new one."""
    for name, value in headers:
        if name == _HEADER and _HARMLESS.fullmatch(value):
            return value.decode()
    return uuid4().hex
