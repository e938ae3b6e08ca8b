"""Reading and checking a folder of pictures, beside only reading, hashing and decoding it."""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks import Figure, compare, show
from imago.config import DataConfig, SyntheticConfig
from imago.data.dataset import ImageDataset
from imago.data.sources import load_dataset
from imago.data.statistics import compute_statistics
from imago.data.synthetic import synthetic_dataset, write_folder
from imago.data.validation import validate

SPECIES = 5


def figures(pictures: int = 1250, rounds: int = 3) -> Iterator[Figure]:
    """Measure on so many synthetic pictures of 224 pixels, 60 % of them for training."""
    train, rest = pictures * 6 // (10 * SPECIES), pictures * 2 // (10 * SPECIES)
    synthetic = SyntheticConfig(species=SPECIES, per_class_train=train, per_class_val=rest, per_class_test=rest)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "moths"
        dataset = synthetic_dataset(synthetic, 224, seed=0)
        write_folder(dataset, root)
        stored = Path(scratch) / "dataset.arrow"
        dataset.write(stored)
        yield compare(
            "data.load_and_check", lambda: _check(root), lambda: _decode(root), rounds=rounds, per=len(dataset)
        )
        yield compare("data.read_again", lambda: _map(stored), lambda: _read(root), rounds=rounds, per=len(dataset))


def _check(root: Path) -> None:
    """Load, measure, run every check and the expectations, and write the page."""
    config = DataConfig(source=str(root))
    dataset = load_dataset(config, seed=0)
    validate(dataset, compute_statistics(dataset), config).raise_if_refused()


def _decode(root: Path) -> None:
    for data in _read(root):
        hashlib.sha256(data).hexdigest()
        Image.open(io.BytesIO(data)).convert("RGB").load()


def _map(stored: Path) -> list[bytes]:
    dataset = ImageDataset.read(stored)
    return [dataset.image(index) for index in range(len(dataset))]


def _read(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(root.rglob("*.jpg"))]


if __name__ == "__main__":
    show(figures())
