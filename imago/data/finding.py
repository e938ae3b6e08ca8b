"""What one check found."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """How many defects of one kind there are, in what, and a sentence that says so."""

    count: int
    sentence: str
    pictures: list[str] = field(default_factory=list)  # ids
    groups: list[list[str]] = field(default_factory=list)  # ids that belong together
    agreements: list[float] = field(default_factory=list)  # of each group: how alike its pictures are, up to 1
    copy_of: dict[str, str] = field(default_factory=dict)  # of each copy that would leave, the one that it leaves for
    classes: list[str] = field(default_factory=list)
    to_quarantine: list[str] | None = None  # ids; all of `pictures` where None


def nothing(sentence: str) -> Finding:
    """A check that found nothing."""
    return Finding(0, sentence)


def counted(count: int, one: str, many: str) -> str:
    """Return `1 picture` or `3 pictures`."""
    return f"{count:,} {one if count == 1 else many}"


def some(names: Collection[str], *, limit: int = 3) -> str:
    """Return up to `limit` quoted names, and how many there are besides."""
    shown: Sequence[str] = [f"'{name}'" for name in list(names)[:limit]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")
