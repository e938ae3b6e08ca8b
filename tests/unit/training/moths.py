"""The smallest data sets and models that training can be tried on."""

import io
from types import TracebackType
from typing import Self

from PIL import Image

from imago.config import SyntheticConfig
from imago.data.dataset import ImageDataset
from imago.data.synthetic import synthetic_dataset
from imago.history import EpochResult

ARCHITECTURE = "test_efficientnet"  # timm's own for tests: 100,000 weights
SIZE = 32


def small_moths(species: int = 2, train: int = 12, *, seed: int = 0) -> ImageDataset:
    """Draw a few moths."""
    config = SyntheticConfig(species=species, per_class_train=train, per_class_val=4, per_class_test=4)
    return synthetic_dataset(config, SIZE, seed)


def plain_pictures(train: int, val: int) -> ImageDataset:
    """Make so many pictures each of two classes that any network learns in a few steps: red ones, and blue ones."""
    rows = []
    for split, count in (("train", train), ("val", val)):
        for label, channel in (("blue", 2), ("red", 0)):
            for number in range(count):
                colour = [40 + 3 * number] * 3
                colour[channel] = 220 - 2 * number
                file = io.BytesIO()
                Image.new("RGB", (SIZE, SIZE), tuple(colour)).save(file, "PNG")
                rows.append((f"{split}/{label}/{number}", file.getvalue(), label, split))
    return picture_rows(*rows)


def picture_rows(*rows: tuple[str, bytes, str, str]) -> ImageDataset:
    """Make a data set of rows of id, bytes, label and split."""
    ids, images, labels, splits = zip(*rows, strict=True)
    return ImageDataset.from_rows(ids, images, labels, splits, origin="made by a test")


class Silence:
    """A reporter that only remembers."""

    def __init__(self) -> None:
        self.epochs: list[EpochResult] = []
        self.stretches: list[tuple[str, int, int, EpochResult | None]] = []
        self.losses: list[list[float]] = []  # by stretch
        self.counted: list[int] = []  # pictures, likewise
        self.stream = io.StringIO()

    def start(self, what: str, total: int, *, epochs_left: int = 0, last: EpochResult | None = None) -> None:
        self.stretches.append((what, total, epochs_left, last))
        self.losses.append([])
        self.counted.append(0)

    def advance(self, count: int = 1, loss: float | None = None) -> None:
        self.counted[-1] += count
        if loss is not None:
            self.losses[-1].append(loss)

    def epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)

    def note(self, text: str) -> None:
        self.stream.write(f"{text}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
