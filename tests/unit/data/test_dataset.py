"""The dataset: kept whole on disk, with a fingerprint of its content only."""

from pathlib import Path

import pyarrow as pa
import pytest

from imago.data.dataset import ImageDataset


def _dataset(ids: list[str] | None = None) -> ImageDataset:
    ids = ids or ["b.jpg", "a.jpg", "c.jpg"]
    return ImageDataset.from_rows(
        ids, [name.encode() for name in ("1", "2", "3")], ["x", "y", "x"], ["train", "train", "test"], origin="a test"
    )


def test_rows_are_ordered_by_split_and_id() -> None:
    assert _dataset().ids == ["c.jpg", "a.jpg", "b.jpg"]


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    _dataset().write(tmp_path / "images.arrow")
    again = ImageDataset.read(tmp_path / "images.arrow")
    assert list(again.batches()) == list(_dataset().batches())
    assert again.origin == "a test"


def told(attributes: list[str | None] | None) -> ImageDataset:
    return ImageDataset.from_rows(
        ["b.jpg", "a.jpg"], [b"1", b"2"], ["x", "y"], ["train"] * 2, attributes, origin="a test"
    )


def test_attributes_follow_their_pictures_and_change_no_fingerprint(tmp_path: Path) -> None:
    dataset = told(['{"camera": "Nikon", "iso": 100}', None])
    dataset.write(tmp_path / "images.arrow")
    again = ImageDataset.read(tmp_path / "images.arrow")
    assert again.attributes == dataset.attributes == [{}, {"camera": "Nikon", "iso": 100}]
    assert again.without({"a.jpg"}).attributes == [{"camera": "Nikon", "iso": 100}]
    assert dataset.fingerprint == told(None).fingerprint


def test_a_file_of_an_earlier_version_has_no_attributes(tmp_path: Path) -> None:
    table = pa.Table.from_batches(_dataset().batches()).drop_columns(["attributes"])
    with pa.OSFile(str(tmp_path / "old.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    old = ImageDataset.read(tmp_path / "old.arrow")
    assert old.attributes == [{}, {}, {}]
    assert list(old.batches()) == list(_dataset().batches())


def test_the_fingerprint_follows_content_and_not_paths() -> None:
    assert _dataset(["q.jpg", "z.jpg", "a.jpg"]).fingerprint == _dataset().fingerprint
    assert _dataset().without({"a.jpg"}).fingerprint != _dataset().fingerprint


def test_counts_by_class_and_split() -> None:
    assert _dataset().counts() == {
        "x": {"train": 1, "val": 0, "test": 1},
        "y": {"train": 1, "val": 0, "test": 0},
    }


def test_without_takes_out_only_what_is_named() -> None:
    assert _dataset().without({"a.jpg", "nowhere"}).ids == ["c.jpg", "b.jpg"]


def test_a_file_cut_off_is_not_read_as_whole(tmp_path: Path) -> None:
    path = tmp_path / "images.arrow"
    _dataset().write(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(pa.ArrowInvalid):
        ImageDataset.read(path)
