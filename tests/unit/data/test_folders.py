import os
from pathlib import Path

import pytest

from imago.data.dataset import SPLITS
from imago.data.folders import list_folder, walk
from imago.data.listing import MAX_FILE_BYTES
from imago.errors import ConfigError, DataRefused
from tests.unit.data.pictures import write_classes


def ids(root):
    return [row.id for row in list_folder(root, "moths").rows]


def test_class_folders_give_labels_and_no_splits(tmp_path):
    write_classes(tmp_path, {"LUNA MOTH": 2, "ATLAS MOTH": 1})
    listing = list_folder(tmp_path, "moths")
    assert [(row.id, row.label, row.split) for row in listing.rows] == [
        ("ATLAS MOTH/0.jpg", "ATLAS MOTH", None),
        ("LUNA MOTH/0.jpg", "LUNA MOTH", None),
        ("LUNA MOTH/1.jpg", "LUNA MOTH", None),
    ]
    assert listing.rows[0].read() == (tmp_path / "ATLAS MOTH" / "0.jpg").read_bytes()
    assert "class folders" in listing.origin


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "VALID", "Test"),
        ("train", "validation", "test"),
        ("Training", "Val", "TESTING"),
    ],
)
def test_split_folders_are_recognised_by_any_of_their_names(tmp_path, names):
    write_classes(tmp_path, {f"{name}/{label}": 2 for name in names for label in "ab"})
    rows = list_folder(tmp_path, "moths").rows
    assert {(row.id.split("/")[0], row.split) for row in rows} == set(zip(names, SPLITS, strict=True))
    assert {row.label for row in rows} == {"a", "b"}


def test_folder_of_an_unpacked_archive_is_looked_into(tmp_path):
    write_classes(tmp_path, {f"archive/{split}/{label}": 1 for split in SPLITS for label in "ab"})
    rows = list_folder(tmp_path, "moths").rows
    assert {(row.label, row.split) for row in rows} == {(label, split) for label in "ab" for split in SPLITS}
    assert rows[0].id == "archive/test/a/0.jpg"


def test_class_called_train_among_others_is_a_class(tmp_path):
    write_classes(tmp_path, {"train": 2, "plane": 2})
    assert {row.label for row in list_folder(tmp_path, "toys").rows} == {"train", "plane"}


def test_pictures_deeper_in_a_class_folder_belong_to_the_class(tmp_path):
    write_classes(tmp_path, {"a/2023/may": 1, "b": 1})
    assert [(row.id, row.label) for row in list_folder(tmp_path, "moths").rows] == [
        ("a/2023/may/0.jpg", "a"),
        ("b/0.jpg", "b"),
    ]


def test_side_files_and_hidden_files_are_ignored_and_text_called_jpg_is_kept(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    for name in (
        "moths.csv",
        "a/notes.txt",
        "a/.DS_Store",
        ".git/x.jpg",
        "__MACOSX/a/._0.jpg",
        "a/text.JPG",
        "loose.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not a picture")
    listing = list_folder(tmp_path, "moths")
    assert [row.id for row in listing.rows] == ["a/0.jpg", "a/text.JPG", "b/0.jpg"]
    assert "Ignored 2 files that are no pictures (.csv, .txt)." in listing.origin
    assert "Ignored 1 pictures outside the class folders (.png)." in listing.origin


def test_file_over_the_limit_and_a_vanished_file_have_no_bytes(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 1})
    with (tmp_path / "a" / "0.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    rows = {row.id: row for row in list_folder(tmp_path, "moths").rows}
    (tmp_path / "a" / "1.jpg").unlink()
    assert rows["a/0.jpg"].read() == rows["a/1.jpg"].read() == b""
    assert len(rows["b/0.jpg"].read()) > 100


def test_pipe_called_jpg_is_not_waited_for(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    assert ids(tmp_path) == ["a/0.jpg", "b/0.jpg"]


def test_links_that_loop_or_leave_the_folder_are_not_followed(tmp_path):
    root = write_classes(tmp_path / "root", {"a": 1, "b": 1})
    write_classes(tmp_path / "elsewhere", {"c": 1})
    links = {
        "a/up": root,
        "a/here": root / "a",
        "c": tmp_path / "elsewhere" / "c",
        "a/out.jpg": tmp_path / "elsewhere" / "c" / "0.jpg",
        "a/dead.jpg": root / "nothing.jpg",
        "b/self": root / "b" / "self",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    listing = list_folder(root, "moths")
    assert [row.id for row in listing.rows] == ["a/0.jpg", "b/0.jpg"]
    assert f"Did not follow {len(links)} links" in listing.origin


def test_links_within_the_folder_are_followed(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "1.jpg").symlink_to("0.jpg")
    assert ids(tmp_path) == ["a/0.jpg", "b/0.jpg", "b/1.jpg", "c/0.jpg"]


def test_folders_linked_to_each_other_end(tmp_path):
    write_classes(tmp_path, {f"c{number}": 1 for number in range(12)})
    for number in range(12):
        for other in range(12):
            if other != number:
                (tmp_path / f"c{number}" / f"to{other}").symlink_to(tmp_path / f"c{other}")
    assert len(walk(tmp_path).files) < 500


def test_root_that_is_a_link_is_read(tmp_path):
    write_classes(tmp_path / "data", {"a": 1, "b": 1})
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert ids(tmp_path / "link") == ["a/0.jpg", "b/0.jpg"]


def test_class_whose_name_is_not_utf_8_is_refused_and_named(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    (odd / "0.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match=r"'caf\\xe9' in moths has a name that is not UTF-8"):
        list_folder(tmp_path, "moths")


def test_file_whose_name_is_not_utf_8_is_read(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9.jpg")).write_bytes(b"x")
    rows = {row.id: row for row in list_folder(tmp_path, "moths").rows}
    assert rows["a/caf\\xe9.jpg"].read() == b"x"


@pytest.mark.parametrize(
    ("folders", "error", "message"),
    [
        (["val/a", "val/b", "test/a"], DataRefused, "no train folder"),
        (["train", "test"], DataRefused, "have no labels"),
        (["."], DataRefused, "have no labels"),
        (["train/a", "train/b", "val/a", "valid/a"], ConfigError, "two folders for one split"),
    ],
)
def test_folders_that_cannot_be_understood_are_refused(tmp_path, folders, error, message):
    write_classes(tmp_path, dict.fromkeys(folders, 2))
    with pytest.raises(error, match=message):
        list_folder(tmp_path, "moths")


def test_unlabelled_test_folder_beside_class_folders_is_ignored(tmp_path):
    write_classes(tmp_path, {"train/a": 1, "train/b": 1, "test": 3})
    listing = list_folder(tmp_path, "moths")
    assert [row.id for row in listing.rows] == ["train/a/0.jpg", "train/b/0.jpg"]
    assert "Ignored 3 pictures outside the class folders" in listing.origin


@pytest.mark.parametrize("above", ["archive", "archive/moths", "a/b/c"])
@pytest.mark.parametrize("splits", [("train/", "test/"), ("",)])
def test_folders_above_the_classes_are_looked_into_past_pictures_beside_them(tmp_path, above, splits):
    write_classes(tmp_path, {f"{above}/{split}{label}": 1 for split in splits for label in "ab"})
    (tmp_path / "cover.jpg").write_bytes(b"a cover")
    assert {row.label for row in list_folder(tmp_path, "moths").rows} == {"a", "b"}


def test_splits_inside_the_classes_are_refused(tmp_path):
    write_classes(tmp_path, {f"{label}/{split}": 1 for split in ("train", "test") for label in "ab"})
    with pytest.raises(DataRefused, match="test, train inside its class folders"):
        list_folder(tmp_path, "moths")


def test_a_table_beside_pictures_in_one_folder_is_named(tmp_path):
    write_classes(tmp_path, {"images": 3})
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert "If labels.csv says the labels, name that file" in list_folder(tmp_path, "moths").origin
