"""An export holds the bytes as they were, and never destroys what it did not write."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imago.config import DataConfig
from imago.data.dataset import ImageDataset
from imago.data.export import MARKER, PARQUET, export, refuse_overlap
from imago.data.sources import load_dataset
from imago.errors import ConfigError, ImagoError
from tests.packages import colour_dataset


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def test_folders_hold_every_picture_unchanged_by_split_and_label(tmp_path: Path) -> None:
    dataset = colour_dataset()
    export(dataset, tmp_path / "out")
    assert files(tmp_path / "out") == {name: dataset.image(index) for index, name in enumerate(dataset.ids)}


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    dataset = colour_dataset()
    export(dataset, tmp_path / "out", "parquet")
    assert pq.read_table(tmp_path / "out" / PARQUET).equals(pa.Table.from_batches(dataset.batches()))


def test_the_export_names_its_fingerprint(tmp_path: Path) -> None:
    dataset = colour_dataset()
    export(dataset, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / MARKER).read_text(encoding="utf-8"))
    assert facts["fingerprint"] == dataset.fingerprint
    assert facts["pictures"] == len(dataset)


def test_an_earlier_export_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    export(colour_dataset(test=6), tmp_path / "out")
    smaller = colour_dataset(test=1)
    export(smaller, tmp_path / "out")
    assert len(files(tmp_path / "out")) == len(smaller)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exported_before", [False, True])
def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path, exported_before: bool) -> None:
    target = tmp_path / "out"
    if exported_before:
        export(colour_dataset(), target)
    target.mkdir(exist_ok=True)
    (target / "mine.txt").write_text("mine", encoding="utf-8")
    before = files(target)
    with pytest.raises(ConfigError, match="holds more than an earlier export"):
        export(colour_dataset(), target)
    assert files(target) == before


def test_two_pictures_of_one_name_both_survive(tmp_path: Path) -> None:
    ids = ["a/1.jpg", "b/1.JPG", "c/1.jpg"]
    dataset = ImageDataset.from_rows(ids, [b"x", b"y", b"y"], ["luna"] * 3, ["train"] * 3, origin="rows")
    export(dataset, tmp_path / "out")
    assert sorted(files(tmp_path / "out").values()) == [b"x", b"y", b"y"]
    assert "train/luna/1.jpg" in files(tmp_path / "out")


@pytest.mark.parametrize("label", ["../out", "..", "a/b", ""])
def test_a_label_that_would_leave_its_folder_is_refused(tmp_path: Path, label: str) -> None:
    dataset = ImageDataset.from_rows(["1.jpg"], [b"x"], [label], ["train"], origin="rows")
    with pytest.raises(ConfigError, match="cannot name a folder"):
        export(dataset, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_correction_made_by_hand_is_not_thrown_away(tmp_path: Path) -> None:
    export(colour_dataset(), tmp_path / "out")
    picture = next(path for path in sorted((tmp_path / "out").rglob("*")) if path.is_file() and path.name != MARKER)
    picture.rename(picture.with_name("relabelled.jpg"))
    with pytest.raises(ConfigError, match="holds more than an earlier export"):
        export(colour_dataset(), tmp_path / "out")


def test_an_export_that_cannot_take_its_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = colour_dataset()
    export(dataset, tmp_path / "out")
    before = files(tmp_path / "out")
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target == tmp_path / "out" and not self.name.endswith(".earlier"):
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ImagoError, match="could not be written"):
        export(dataset.split("train"), tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_is_a_source_whatever_its_pictures_were_called(tmp_path: Path) -> None:
    dataset = colour_dataset()
    names = [f"{index:06d}" if index % 2 else f"{index % 4} (row {index}).jpg" for index in range(len(dataset))]
    images = [dataset.image(index) for index in range(len(dataset))]
    bare = ImageDataset.from_rows(names, images, dataset.labels, dataset.splits, origin="a test")
    export(bare, tmp_path / "out")
    again = load_dataset(DataConfig(source=str(tmp_path / "out")), seed=0)
    assert again.fingerprint == bare.fingerprint
    assert {Path(name).suffix for name in again.ids} == {".jpg", ".png"}


@pytest.mark.parametrize("target", ["moths", "moths/below", "."])
def test_what_is_exported_does_not_lie_in_or_around_its_source(tmp_path: Path, target: str) -> None:
    (tmp_path / "moths").mkdir()
    with pytest.raises(ConfigError, match="source"):
        refuse_overlap(tmp_path / target, str(tmp_path / "moths"))
    with pytest.raises(ConfigError, match="source"):
        refuse_overlap(tmp_path / target, f"file://{tmp_path}/moths")
    refuse_overlap(tmp_path / "elsewhere", str(tmp_path / "moths"))
    refuse_overlap(tmp_path / "elsewhere", "s3://bucket/moths")
