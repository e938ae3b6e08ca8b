"""Small data sets of good pictures, to which a test adds its trouble."""

from collections.abc import Iterable

from imago.config import DataConfig
from imago.data.checks import CheckResult, run_checks
from imago.data.dataset import ImageDataset
from imago.data.statistics import compute_statistics
from imago.data.transforms import decode
from tests.unit.data.pictures import encode, moth

LABELS = ("io", "luna", "vapourer")
COUNTS = {"train": 6, "val": 2, "test": 2}

Row = tuple[str, bytes, str, str]
"""id, bytes, label, split"""

GOOD: tuple[Row, ...] = tuple(
    (f"{split}/{label}/{number}.jpg", encode(moth(species, 100 * species + 10 * place + number)), label, split)
    for species, label in enumerate(LABELS)
    for place, (split, count) in enumerate(COUNTS.items())
    for number in range(count)
)


def flock(*more: Row, without: Iterable[str] = ()) -> ImageDataset:
    """Return the good pictures, without those of these ids, and more."""
    gone = set(without)
    rows = [row for row in GOOD if row[0] not in gone] + list(more)
    ids, images, labels, splits = zip(*rows, strict=True)
    return ImageDataset.from_rows(ids, images, labels, splits, origin="a test")


def bytes_of(name: str) -> bytes:
    """Return the bytes of one of the good pictures."""
    return next(image for id_, image, _, _ in GOOD if id_ == name)


def checked(dataset: ImageDataset, config: DataConfig | None = None) -> dict[str, CheckResult]:
    """Return what each check finds in a data set."""
    config = config or DataConfig()
    table = compute_statistics(dataset, max_pixels=config.max_pixels)
    look = lambda row: decode(dataset.image(row), max_pixels=config.max_pixels)  # noqa: E731
    return {result.id: result for result in run_checks(table, config, look)}
