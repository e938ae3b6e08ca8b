"""What can go wrong, said so that a person knows what, where and what to do."""

import difflib
from collections.abc import Iterable


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


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return ` Did you mean 'a' or 'b'?` for the nearest of the known names, or an empty string."""
    spelt = {one.casefold(): one for one in known}
    close = [spelt[one] for one in difflib.get_close_matches(name.casefold(), spelt, n=count, cutoff=0.5)]
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(match) for match in close)}?"
