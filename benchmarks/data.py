"""Reading and checking pictures, beside the least that reading them costs, and beside cleanvision; and how it grows."""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import Figure, compare, show
from imago.config import DataConfig
from imago.data.copy_checks import near_copies
from imago.data.dataset import ImageDataset
from imago.data.sources import load_dataset
from imago.data.statistics import PictureTable, compute_statistics
from imago.data.synthetic import draw_moth
from imago.data.transforms import decode
from imago.data.validation import validate

SPECIES = 8
os.environ.setdefault("TQDM_DISABLE", "1")  # cleanvision's bars


def figures(pictures: int = 12_500, few: int = 1_250, many: int = 100_000, rounds: int = 1) -> Iterator[Figure]:
    """Measure speed on so many pictures of 224 pixels, and growth from `few` to `many` of 48 pixels.

    All but memory and growth is CPU time, since what else the machine does must not count.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "moths"
        write_moths(root, pictures, 224)
        cpu = time.process_time
        yield compare(
            "data.load_and_check", lambda: check(root), lambda: decode_all(root), rounds=rounds, per=pictures, clock=cpu
        )
        yield compare(
            "data.beside_cleanvision",
            lambda: check(root),
            lambda: find_issues(root),
            rounds=rounds,
            per=pictures,
            clock=cpu,
            warm=False,
        )
        stored = Path(scratch) / "dataset.arrow"
        load_dataset(DataConfig(source=str(root)), seed=0).write(stored)
        yield compare(
            "data.read_stored", lambda: read_mapped(stored), lambda: read_files(root), rounds=5, per=pictures, clock=cpu
        )
        yield again(root, pictures)
        yield from growth(Path(scratch), few, pictures, many)


def growth(scratch: Path, few: int, some: int, many: int) -> Iterator[Figure]:
    """Measure what a picture more costs, in time and in memory."""
    roots = {count: scratch / f"{count}" for count in (few, many)}
    for count, root in roots.items():
        write_moths(root, count, 48)
    dataset = load_dataset(DataConfig(source=str(roots[many])), seed=0)
    table = compute_statistics(dataset)
    spent = {}
    for count in (min(some, many), many):
        some_rows = slice(None, None, max(1, many // count))
        part = PictureTable(table.frame[some_rows].reset_index(drop=True), table.outlines[some_rows])
        begun = time.process_time()
        near_copies(part, lambda row, step=some_rows.step: decode(dataset.image(row * step)))
        spent[count] = 1000 * (time.process_time() - begun) / len(part)
    small, large = spent[min(some, many)], spent[many]
    yield Figure("data.near_duplicates_growth", round(large / small, 4), "lower", large, small, "ms a picture")
    peaks = {count: peak(root) for count, root in roots.items()}
    ratio = round(peaks[many] / peaks[few], 4)
    yield Figure("data.peak_memory", ratio, "lower", peaks[many], peaks[few], f"MB, {many:,} beside {few:,} pictures")


def again(root: Path, pictures: int) -> Figure:
    """Load the same source twice: the second time no picture is read."""
    with fresh_home():
        spent = []
        for _ in range(2):
            begun = time.process_time()
            load_dataset(DataConfig(source=str(root)), seed=0)
            spent.append(1000 * (time.process_time() - begun) / pictures)
    first, second = spent
    return Figure("data.load_again", round(second / first, 4), "lower", second, first, "ms a picture")


def write_moths(root: Path, count: int, size: int) -> None:
    """Write so many different pictures as split folders, 60 % of them for training."""
    drawn = min(size, 96)
    for index in range(count):
        rng = np.random.default_rng(index)
        picture = Image.fromarray(draw_moth(index % SPECIES, rng, drawn)).resize((size, size))
        grain = rng.integers(-18, 19, (size, size, 1), dtype=np.int16)  # files as large as photographs
        split = "train" if index % 10 < 6 else "val" if index % 10 < 8 else "test"
        folder = root / split / f"species {index // 10 % SPECIES}"
        folder.mkdir(parents=True, exist_ok=True)
        grainy = (np.asarray(picture, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{index:06d}.jpg", quality=90)


class fresh_home(tempfile.TemporaryDirectory[str]):  # noqa: N801 - a context, as in the standard library
    """A home in which nothing has been read before."""

    def __enter__(self) -> str:
        self.before = os.environ.get("IMAGO_HOME")
        os.environ["IMAGO_HOME"] = self.name
        return self.name

    def __exit__(self, *error: object) -> None:
        del os.environ["IMAGO_HOME"]
        if self.before is not None:
            os.environ["IMAGO_HOME"] = self.before
        self.cleanup()


def check(root: Path) -> None:
    """Load, measure, run every check and the expectations, and write the page."""
    config = DataConfig(source=str(root))
    with fresh_home():
        dataset = load_dataset(config, seed=0)
        validate(dataset, compute_statistics(dataset), config).raise_if_refused()


def decode_all(root: Path) -> None:
    """Read, hash and decode, as the least that any check has to do."""
    for path in sorted(root.rglob("*.jpg")):
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        Image.open(io.BytesIO(data)).convert("RGB").load()


def find_issues(root: Path) -> None:
    """Run cleanvision's default checks, in this process."""
    from cleanvision import Imagelab

    Imagelab(data_path=str(root), verbose=False).find_issues(n_jobs=1, verbose=False)


def read_mapped(stored: Path) -> int:
    dataset = ImageDataset.read(stored)
    return sum(len(dataset.image(index)) for index in range(len(dataset)))


def read_files(root: Path) -> int:
    return sum(len(path.read_bytes()) for path in sorted(root.rglob("*.jpg")))


def peak_of_this_process() -> float:
    """Return the largest resident set since the program began, in megabytes; `ru_maxrss` counts its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def peak(root: Path) -> float:
    """Return the peak memory of a process that loads and checks a folder, in megabytes."""
    command = [sys.executable, "-m", "benchmarks.data", str(root)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check(Path(sys.argv[1]))
        print(peak_of_this_process())
    else:
        show(figures())
