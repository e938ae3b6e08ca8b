"""Waiting for what another process or thread does: a look every now and then, until a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PAUSE = 0.02  # seconds


def until(condition: Callable[[], Found], seconds: float, what: Callable[[], str] | str) -> Found:
    """Return what the condition gives as soon as it is true; fail after so many seconds, saying what did not come."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(PAUSE)
    return found
