"""Plants every defect that the data check knows, and holds what the check finds against what was planted.

`python -m tests.planted FOLDER` does so in a copy of a folder with train/, val/ and test/, of at least 12 classes, and
prints a table of planted, found and falsely found.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from tests.pictures import png_that_claims
from tests.workspace import ROOT

Found = set[frozenset[str]]
"""What a check names: each picture, each group of pictures, or each class."""

SMALL_CLASS = 3  # pictures


@dataclass
class Garden:
    """A copy of a data set, its untouched pictures by split and class, and what was planted by the check's id."""

    root: Path
    planted: dict[str, Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = sorted(path for path in self.root.rglob("*") if path.is_file())
        self.untouched = {
            (split, label): [path for path in files if path.parent == self.root / split / label]
            for split in ("train", "val", "test")
            for label in self.classes
        }

    @property
    def classes(self) -> list[str]:
        return sorted(path.name for path in (self.root / "train").iterdir())

    def take(self, split: str, label: str) -> Path:
        """Return a picture that no other defect is planted in."""
        return self.untouched[split, label].pop(0)

    def beside(self, path: Path, name: str, data: bytes, *, split: str = "", label: str = "") -> Path:
        """Write a file beside a picture, or in another split or class."""
        place = self.root / (split or path.parent.parent.name) / (label or path.parent.name) / name
        place.write_bytes(data)
        return place

    def note(self, check: str, *names: Path | str) -> None:
        """Remember that a check has to name these together."""
        told = {str(name.relative_to(self.root)) if isinstance(name, Path) else name for name in names}
        self.planted.setdefault(check, set()).add(frozenset(told))


def plant(root: Path) -> dict[str, Found]:
    """Plant every defect of a picture, of copies and of classes in a folder; return what each check has to name."""
    garden = Garden(root)
    _pictures(garden)
    _copies(garden)
    _classes(garden)
    return garden.planted


def named(check: dict[str, Any]) -> Found:
    """Return what a check named, from its result as JSON."""
    for key in ("groups", "classes"):
        if check[key]:
            return {frozenset(one) if key == "groups" else frozenset({one}) for one in check[key]}
    return {frozenset({name}) for name in check["pictures"]}


def table(
    planted: dict[str, Found], before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[tuple[str, int, int, int, int]]:
    """Give for each check what it had found before, what was planted, what of that it found, and what besides."""
    for was, now in zip(before, after, strict=True):
        wanted, found, known = planted.get(now["id"], set()), named(now), named(was)
        yield now["id"], len(known), len(wanted), len(wanted & found), len(found - wanted - known)


def _pictures(garden: Garden) -> None:
    label = garden.classes[0]
    for name, data in (
        ("cut.jpg", garden.take("train", label).read_bytes()),
        ("text.jpg", b"no picture"),
        ("empty.jpg", b""),
    ):
        cut = data[: len(data) * 3 // 5] if name == "cut.jpg" else data
        garden.note("undecodable", garden.beside(garden.root / "train" / label / name, name, cut))
    huge = garden.beside(garden.root / "train" / label / "x", "huge.png", png_that_claims(60_000, 60_000))
    garden.note("too_many_pixels", huge)
    lying = garden.take("train", label)
    garden.note("extension_mismatch", lying.rename(lying.with_suffix(".png")))
    for check, change in _CHANGES.items():
        path = garden.take("train", garden.classes[1])
        path.write_bytes(encoded(change(Image.open(path).convert("RGB"))))
        garden.note(check, path)


def _copies(garden: Garden) -> None:
    _, _, first, second, third, *_ = garden.classes
    source = garden.take("train", first)
    garden.note("duplicate_in_split", source, garden.beside(source, "again.jpg", source.read_bytes()))
    source = garden.take("test", first)
    leak = garden.beside(source, "leak.jpg", source.read_bytes(), split="train")
    garden.note("duplicate_across_splits", source, leak)
    source = garden.take("train", second)
    garden.note("label_conflict", source, garden.beside(source, "other name.jpg", source.read_bytes(), label=third))
    for number, change in enumerate(_LIKENESSES):
        source = garden.take("train", second)
        near = garden.beside(source, f"near {number}.jpg", encoded(change(Image.open(source).convert("RGB"))))
        garden.note("near_duplicate_in_split", source, near)
        source = garden.take("test", second)
        changed = encoded(change(Image.open(source).convert("RGB")))
        near = garden.beside(source, f"leak {number}.jpg", changed, split="train")
        garden.note("near_duplicate_across_splits", source, near)
        source = garden.take("train", second)
        changed = encoded(change(Image.open(source).convert("RGB")))
        near = garden.beside(source, f"conflict {number}.jpg", changed, label=third)
        garden.note("near_label_conflict", source, near)


def _classes(garden: Garden) -> None:
    *_, absent, small, unknown, spelt = garden.classes
    shutil.rmtree(garden.root / "val" / absent)
    garden.note("class_missing_in_split", absent)
    for path in garden.untouched["train", small][SMALL_CLASS:]:
        path.unlink()
    garden.note("class_too_small", small)
    garden.note("class_imbalance", small)
    shutil.rmtree(garden.root / "train" / unknown)
    garden.note("unknown_test_class", unknown)
    other = f"{spelt.swapcase().replace('_', ' ')} "
    for split in ("train", "val", "test"):
        folder = garden.root / split / other
        folder.mkdir()
        paths = garden.untouched[split, spelt]
        for path in paths[: len(paths) // 2]:
            path.rename(folder / path.name)
    garden.note("class_name_collision", spelt)
    garden.note("class_name_collision", other)


def another_camera(folder: Path) -> None:
    """Make every picture below a folder look as if a darker, redder camera had taken it."""
    for path in sorted(folder.rglob("*.jpg")):
        try:
            picture = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
        except OSError:  # one that was planted
            continue
        path.write_bytes(encoded(Image.fromarray((picture * (0.75, 0.55, 0.45)).astype(np.uint8))))


def encoded(image: Image.Image, quality: int = 88) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def _on(ground: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        whole = Image.new("RGB", image.size, (ground,) * 3)
        whole.paste(image.resize((image.width // 6, image.height // 6)), (5, 5))
        return whole

    return change


def _blank(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).integers(118, 122, (image.height, image.width, 3))
    return Image.fromarray(noise.astype(np.uint8))


_CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "too_small": lambda image: image.resize((12, 12)),
    "near_blank": _blank,
    "dark": _on(0),
    "bright": _on(255),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 16)),
    "odd_aspect": lambda image: image.crop((0, image.height // 3, image.width, image.height // 3 + image.width // 4)),
}

_LIKENESSES: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)),
    lambda image: image.crop((0, 0, image.width * 9 // 10, image.height * 9 // 10)).resize(image.size),
    lambda image: ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.2)).enhance(0.4),
)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / folder.name, copy_function=shutil.copyfile))
        for place in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            place.chmod(0o755)
        before, planted, after = checked(copy), plant(copy), checked(copy)
    print(f"as it is: {before['verdict']}, {before['pictures']}; planted in: {after['verdict']}, {after['pictures']}")
    print(f"{'check':<30} before  planted  found  falsely found")
    for check, known, wanted, found, false in table(planted, before["checks"], after["checks"]):
        print(f"{check:<30} {known:>6}  {wanted:>7}  {found:>5}  {false:>13}")


def checked(folder: Path) -> dict[str, Any]:
    """Run the data check on the command line and return what it says."""
    command = [sys.executable, "run.py", "data", "check", "--data", str(folder), "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


if __name__ == "__main__":
    main(Path(sys.argv[1]))
