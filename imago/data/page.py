"""The data check as one self-contained page: the verdict first, then what was found, with pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imago.data.checks import CheckResult
from imago.data.contact_sheet import class_rows, load_template, thumbnail
from imago.data.dataset import SPLITS, ImageDataset
from imago.data.expectations import describe
from imago.data.statistics import PictureTable
from imago.data.transforms import MAX_PIXELS, UnreadablePicture

if TYPE_CHECKING:
    from imago.data.validation import ValidationResult

GRAVITY = ("refuse", "quarantine", "warn", "off")

_PICTURES, _GROUPS, _GROUP = 12, 8, 6
_QUARANTINED = 200
_SHEET = 4
_BARS = 8


@dataclass(frozen=True)
class Shown:
    """A picture on the page; `why` it has no thumbnail, where it has none."""

    id: str
    name: str  # of its file
    label: str
    split: str
    thumbnail: str | None  # data URI
    why: str = ""
    leaves: bool = False  # the data that is trained on


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, and how many more there are."""

    pictures: list[Shown]
    hidden: int
    agreement: float  # 1 for the same bytes


@dataclass(frozen=True)
class Card:
    """A check that found something."""

    result: CheckResult
    pictures: list[Shown] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    hidden: int = 0

    @property
    def title(self) -> str:
        """The sentence up to its examples."""
        return self.result.sentence.partition(": ")[0].removesuffix(".")

    @property
    def examples(self) -> str:
        """The rest of the sentence, where the page shows no pictures instead."""
        return "" if self.pictures or self.groups else self.result.sentence.partition(": ")[2]

    @property
    def consequence(self) -> str:
        if self.result.severity == "quarantine":
            return f"{len(self.result.quarantined):,} left out"
        return "the data is refused" if self.result.severity == "refuse" else "worth a look"


@dataclass(frozen=True)
class Bar:
    """How many pictures there are of a size, and which share of the most frequent one's that is."""

    size: str  # pixels
    count: int
    share: float


def render_page(
    result: "ValidationResult",
    dataset: ImageDataset,
    accepted: ImageDataset,
    table: PictureTable,
    *,
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Return the page of a verdict on a data set, with its table, of which some pictures were accepted."""
    template = load_template(Path(__file__).with_suffix(".html"))
    album = _Album(dataset, result.quarantined, max_pixels)
    return template.render(
        result=result,
        splits={split: accepted.splits.count(split) for split in SPLITS},
        findings=[album.card(check) for check in sorted(result.checks, key=_gravity) if check.count],
        quiet=[check for check in result.checks if not check.count],
        quarantined=list(result.quarantined.items())[:_QUARANTINED],
        sizes=size_bars(table),
        classes=class_rows(accepted, per_class=_SHEET, max_pixels=max_pixels),
        expectations=[
            {
                "sentence": describe(row),
                "severity": row["expectation_config"].get("severity", "critical"),
                "met": row["success"],
            }
            for row in result.expectations.get("results", [])
        ],
    )


def size_bars(table: PictureTable) -> list[Bar]:
    """Return how many readable pictures there are by their shorter side, in a few ranges where the sides are many."""
    sides = table.readable[["width", "height"]].min(axis=1)
    counts = sides.value_counts().sort_index()
    if len(counts) > _BARS:
        edges = np.unique(np.geomspace(sides.min(), sides.max() + 1, _BARS + 1).round().astype(int))
        ranges = zip(edges[:-1], edges[1:], np.histogram(sides, edges)[0], strict=True)
        named = {f"{low:,}–{high - 1:,}": int(count) for low, high, count in ranges}
    else:
        named = {f"{side:,}": int(count) for side, count in counts.items()}
    most = max(named.values(), default=1)
    return [Bar(size, count, count / most) for size, count in named.items()]


@dataclass(frozen=True)
class _Album:
    dataset: ImageDataset
    quarantined: dict[str, str]
    max_pixels: int

    @cached_property
    def rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.dataset.ids)}

    def card(self, check: CheckResult) -> Card:
        if check.groups:
            groups = [
                Group(self.pictures(group[:_GROUP]), max(0, len(group) - _GROUP), agreement)
                for group, agreement in zip(check.groups[:_GROUPS], check.agreements, strict=False)
            ]
            return Card(check, groups=groups, hidden=max(0, len(check.groups) - _GROUPS))
        shown = self.pictures(check.pictures[:_PICTURES])
        return Card(check, pictures=shown, hidden=max(0, len(check.pictures) - _PICTURES))

    def pictures(self, names: Sequence[str]) -> list[Shown]:
        return [self.picture(name) for name in names]

    def picture(self, name: str) -> Shown:
        row = self.rows[name]
        about: dict[str, Any] = {
            "id": name,
            "name": name.rpartition("/")[2],
            "label": self.dataset.labels[row],
            "split": self.dataset.splits[row],
            "leaves": name in self.quarantined,
        }
        data = self.dataset.image(row)
        if not data:
            return Shown(**about, thumbnail=None, why="no file")
        try:
            return Shown(**about, thumbnail=thumbnail(data, max_pixels=self.max_pixels))
        except UnreadablePicture as error:
            return Shown(**about, thumbnail=None, why=str(error).removeprefix("it ")[:60])


def _gravity(check: CheckResult) -> int:
    return GRAVITY.index(check.severity)
