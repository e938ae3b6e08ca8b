"""What changed between two versions of a data set, told by the pictures' bytes and not by their names."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from imago.data.dataset import ImageDataset


class Picture(NamedTuple):
    """One row of a data set."""

    id: str
    label: str
    split: str


class Change(NamedTuple):
    """A picture whose label or split is another than before; `id` is its name in the new version."""

    id: str
    before: str
    after: str

    def to_json(self) -> dict[str, str]:
        return {"path": self.id, "from": self.before, "to": self.after}


@dataclass(frozen=True)
class Difference:
    """How one version of a data set departs from another; lists are sorted by id."""

    added: list[str]
    removed: list[str]
    relabelled: list[Change]
    moved: list[Change]  # between splits

    @property
    def identical(self) -> bool:
        return not (self.added or self.removed or self.relabelled or self.moved)

    def to_json(self) -> dict[str, Any]:
        return {
            "identical": self.identical,
            "added": self.added,
            "removed": self.removed,
            "relabelled": [change.to_json() for change in self.relabelled],
            "moved": [change.to_json() for change in self.moved],
        }


def compare(old: ImageDataset, new: ImageDataset) -> Difference:
    """Return what was added, removed, relabelled and moved between splits; a picture that was renamed is the same."""
    before, after = _by_bytes(old), _by_bytes(new)
    difference = Difference([], [], [], [])
    for digest in sorted(before.keys() | after.keys()):
        pairs, gone, come = _pair(before.get(digest, []), after.get(digest, []))
        difference.removed.extend(picture.id for picture in gone)
        difference.added.extend(picture.id for picture in come)
        for was, now in pairs:
            if was.label != now.label:
                difference.relabelled.append(Change(now.id, was.label, now.label))
            if was.split != now.split:
                difference.moved.append(Change(now.id, was.split, now.split))
    for changes in (difference.added, difference.removed, difference.relabelled, difference.moved):
        changes.sort()
    return difference


def _by_bytes(dataset: ImageDataset) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = defaultdict(list)
    rows = zip(dataset.digests, dataset.ids, dataset.labels, dataset.splits, strict=True)
    for digest, *row in rows:
        found[digest].append(Picture(*row))
    return found


_LIKENESS: tuple[Callable[[Picture], tuple[str, ...]], ...] = (
    lambda picture: (picture.label, picture.split, picture.id),
    lambda picture: (picture.label, picture.split),
    lambda picture: (picture.id,),
    lambda picture: (picture.label,),
    lambda _: (),
)


def _pair(old: list[Picture], new: list[Picture]) -> tuple[list[tuple[Picture, Picture]], list[Picture], list[Picture]]:
    """Pair the copies of one picture, those that are most alike first; return the pairs and what is left of both."""
    pairs: list[tuple[Picture, Picture]] = []
    new = list(new)
    for key in _LIKENESS:
        left: list[Picture] = []
        for was in old:
            now = next((candidate for candidate in new if key(candidate) == key(was)), None)
            if now is None:
                left.append(was)
            else:
                new.remove(now)
                pairs.append((was, now))
        old = left
    return pairs, old, new
