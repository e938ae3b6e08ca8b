"""What can go wrong, said so that a person knows what, where and what to do."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_PRINTED = re.compile(r"^(?:imago(?:\.\w+)+\.)(?P<kind>[A-Z]\w+): (?P<text>.+)$", re.MULTILINE)


class ImagoError(Exception):
    """An error whose text is written for the user: one line, no traceback needed."""

    exit_code = 1


class ConfigError(ImagoError):
    """A command, configuration or path that cannot be used as given."""

    exit_code = 2


class DataRefused(ImagoError):  # noqa: N818
    """Data that must not be trained on."""

    exit_code = 3


class NotPromoted(ImagoError):  # noqa: N818
    """The gate kept the champion although promotion was required."""

    exit_code = 4


class DeploymentFailed(ImagoError):  # noqa: N818
    """A version that did not come up; whatever served before still serves."""

    exit_code = 5


def printed_error(text: str) -> ImagoError | None:
    """Return the last error of ours in the traceback that another process printed.

    One of a kind defined elsewhere comes back as an ImagoError, whatever this process has imported.
    """
    found = list(_PRINTED.finditer(text))
    if not found:
        return None
    kinds = {kind.__name__: kind for kind in ImagoError.__subclasses__() if kind.__module__ == __name__}
    return kinds.get(found[-1]["kind"], ImagoError)(found[-1]["text"].strip())


class _Note(str):
    """A note for the user: a library's own are not, and stand in the traceback alone."""

    __slots__ = ()


@contextmanager
def as_note(error: BaseException, what: str) -> Iterator[None]:
    """Let what goes wrong while an error is cleaned up after become a note of that error, and not take its place."""
    try:
        yield
    except Exception as later:  # noqa: BLE001  (whatever it is, it is said, and the first error is the one to raise)
        error.add_note(_Note(f"{what}: {later}"))


def notes_of(error: BaseException | None) -> list[str]:
    """Return what `as_note` has noted on an error."""
    return [note for note in getattr(error, "__notes__", ()) if isinstance(note, _Note)]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the kind of one that says nothing in words."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if any(letter.isalpha() for letter in line) else type(error).__name__


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return ` Did you mean 'a' or 'b'?` for the nearest of the known names, or an empty string."""
    spelt = {one.casefold(): one for one in known}
    close = [spelt[one] for one in difflib.get_close_matches(name.casefold(), spelt, n=count, cutoff=0.5)]
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(match) for match in close)}?"


def some_of(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first of the names with commas between, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
