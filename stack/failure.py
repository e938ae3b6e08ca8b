"""Finds our own error behind a failed run, also where it was raised in a container and only printed."""

from collections.abc import Iterator

from imago.errors import ImagoError, printed_error


def reason(error: BaseException) -> ImagoError | None:
    """Return the error of ours that is behind a failed run: in its chain, or in what a container printed."""
    for link in _chain(error):
        if isinstance(link, ImagoError):
            return link
        printed = getattr(link, "stderr", None)
        text = printed.decode("utf-8", errors="replace") if isinstance(printed, bytes) else str(link)
        if found := printed_error(text):
            return found
    return None


def interrupted(error: BaseException) -> bool:
    """Say whether a failed run was interrupted: what was cut off then fails on its way out, and its error comes last.

    MLflow, say, finds its database locked by its own transaction that Ctrl-C left open.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        if isinstance(link, KeyboardInterrupt):
            return True
        if id(link) not in seen:
            seen.add(id(link))
            waiting += [other for other in (link.__cause__, link.__context__) if other is not None]
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
