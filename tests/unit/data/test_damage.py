"""Good pictures are damaged in every way that a disk or a person damages them: nothing crashes, nothing is lost."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imago.config import DataConfig
from imago.data.folders import walk
from imago.data.listing import is_picture
from imago.data.sources import load_dataset
from imago.data.statistics import compute_statistics
from imago.data.transforms import UnreadablePicture, decode
from imago.data.validation import ValidationResult, validate
from tests.unit.data.pictures import encode, moth

GOOD = {
    f"{label}/{number}.jpg": encode(moth(species, 10 * species + number, 48))
    for species, label in enumerate(("io", "luna", "vapourer"))
    for number in range(8)
}
NAMES = [
    "two\nlines.jpg",
    "a, b.jpg",
    "'quoted' \"twice\".jpg",
    "ünïcödé 🦋.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "CAPITALS.JPG",
    " blanks .jpg",
    "percent%20.jpg",
    "$(echo).jpg",
    "-rf.jpg",
    "a" * 200 + ".jpg",
]

Harm = Callable[[Path, bytes], None]


def cut(draw: st.DataObject) -> Harm:
    share = draw.draw(st.floats(0, 1))
    return lambda path, data: void(path.write_bytes(data[: int(len(data) * share)]))


def flip(draw: st.DataObject) -> Harm:
    places = draw.draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=5))

    def harm(path: Path, data: bytes) -> None:
        changed = bytearray(data)
        for place, bit in places:
            changed[int(place * len(data))] ^= 1 << bit
        path.write_bytes(bytes(changed))

    return harm


def swap_header(draw: st.DataObject) -> Harm:
    header = draw.draw(
        st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"%PDF-1.7"])
    )
    return lambda path, data: void(path.write_bytes(header + data[len(header) :]))


def append(draw: st.DataObject) -> Harm:
    more = draw.draw(st.binary(min_size=1, max_size=64))
    return lambda path, data: void(path.write_bytes(data + more))


def replace(draw: st.DataObject) -> Harm:
    content = draw.draw(st.sampled_from([b"", b"\0" * 500, b"text", b"\xff\xd8\xff"]))
    return lambda path, _: void(path.write_bytes(content))


def rename(draw: st.DataObject) -> Harm:
    name = draw.draw(st.sampled_from(NAMES))
    return lambda path, _: void(path.rename(path.with_name(name)))


def another_extension(draw: st.DataObject) -> Harm:
    suffix = draw.draw(st.sampled_from([".png", ".gif", ".tiff", ".webp", ".txt", ".JPEG", ""]))
    return lambda path, _: void(path.rename(path.with_suffix(suffix)))


def loop(_: st.DataObject) -> Harm:
    return lambda path, _: (path.parent / "loop").symlink_to(path.parent)


def link_to_itself(_: st.DataObject) -> Harm:
    return lambda path, _: (path.parent / "itself.jpg").symlink_to(path.parent / "itself.jpg")


def folder_called_picture(_: st.DataObject) -> Harm:
    return lambda path, _: (path.parent / "folder.jpg").mkdir(exist_ok=True)


def pipe(_: st.DataObject) -> Harm:
    return lambda path, _: os.mkfifo(path.parent / f"pipe {path.stem}.jpg")


HARMS = [
    cut, flip, swap_header, append, replace, rename, another_extension, loop, link_to_itself, folder_called_picture,
    pipe,
]  # fmt: skip


def void(_: object) -> None:
    """Do nothing with a result."""


def check(root: Path) -> ValidationResult:
    config = DataConfig(source=str(root), min_per_class=1)
    dataset = load_dataset(config, 0)
    return validate(dataset, compute_statistics(dataset), config)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_damaged_is_accepted_or_in_quarantine_with_a_true_reason(data: st.DataObject) -> None:
    victims = data.draw(st.lists(st.sampled_from(sorted(GOOD)), min_size=1, max_size=5, unique=True))
    harms = [data.draw(st.sampled_from(HARMS))(data) for _ in victims]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGO_HOME", f"{folder}/home")
        root = Path(folder) / "moths"
        for name, content in GOOD.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        for name, harm in zip(victims, harms, strict=True):
            if (root / name).is_file():
                try:
                    harm(root / name, GOOD[name])
                except FileExistsError:  # done before
                    continue
        pictures = [file for file in walk(root).files if is_picture(file.name)]
        result = check(root)
        assert result.found == len(pictures)
        assert result.accepted + len(result.quarantined) == result.found
        by_name = {os.fsencode(file.name).decode("utf-8", "backslashreplace"): Path(file.path) for file in pictures}
        for name, reason in result.quarantined.items():
            check_id, _, why = reason.partition(": ")
            assert why
            if check_id == "undecodable":
                with pytest.raises(UnreadablePicture):
                    decode(by_name[name].read_bytes())
        undecodable = {name for name, reason in result.quarantined.items() if reason.startswith("undecodable")}
        for name in set(by_name) - undecodable - set(result.quarantined):
            assert decode(by_name[name].read_bytes()).ndim == 3
        again = check(root)
        assert again.model_dump(exclude={"page"}) == result.model_dump(exclude={"page"})
