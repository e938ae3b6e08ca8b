"""Finds our own error behind a failed run, also where it was raised in a container and only printed."""

import errno
from collections.abc import Iterator

from zenml.exceptions import RunInterruptedException, RunStoppedException

from imago.errors import ImagoError, printed_error

_INTERRUPTS = (KeyboardInterrupt, RunInterruptedException, RunStoppedException)


def reason(error: BaseException) -> ImagoError | None:
    """Return the error of ours that is behind a failed run: in its chain, or in what a container printed."""
    for link in _chain(error):
        if isinstance(link, ImagoError):
            return link
        printed = getattr(link, "stderr", None)
        text = printed.decode("utf-8", errors="replace") if isinstance(printed, bytes) else str(link)
        if found := printed_error(text):
            return found
    if any(_is_full(link) for link in _links(error)):
        return ImagoError(
            "The disk is full: make room, or set IMAGO_HOME and IMAGO_REPORTS to another one. What was done is kept, "
            "and the same command goes on after it."
        )
    return None


def interrupted(error: BaseException) -> bool:
    """Say whether a failed run was interrupted: what was cut off then fails on its way out, and its error comes last.

    MLflow, say, finds its database locked by its own transaction that Ctrl-C left open, or makes an error of its own
    of what ZenML's handler of the signal raised in it.
    """
    return any(isinstance(link, _INTERRUPTS) for link in _links(error))


def _is_full(error: BaseException) -> bool:
    """Tell whether there was no room, as Python says it and as SQLite does, through whatever stands before it."""
    return getattr(error, "errno", None) == errno.ENOSPC or "database or disk is full" in str(error)


def _links(error: BaseException) -> Iterator[BaseException]:
    """Give an error, and all that it was raised from or while handling."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [other for other in (link.__cause__, link.__context__) if other is not None]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
