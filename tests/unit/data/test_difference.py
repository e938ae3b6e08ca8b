"""Two versions of a data set are compared by their pictures' bytes."""

from imago.data.dataset import ImageDataset
from imago.data.difference import Change, compare

Row = tuple[str, bytes, str, str]

BASE: list[Row] = [
    ("train/atlas/1.jpg", b"one", "atlas", "train"),
    ("train/luna/2.jpg", b"two", "luna", "train"),
    ("test/luna/3.jpg", b"three", "luna", "test"),
]


def dataset(rows: list[Row]) -> ImageDataset:
    ids, images, labels, splits = zip(*rows, strict=True)
    return ImageDataset.from_rows(ids, images, labels, splits, origin="rows")


def test_the_same_pictures_in_another_order_are_identical() -> None:
    assert compare(dataset(BASE), dataset(BASE[::-1])).identical


def test_a_renamed_picture_is_the_same_picture() -> None:
    assert compare(dataset(BASE), dataset([("renamed.jpg", b"one", "atlas", "train"), *BASE[1:]])).identical


def test_added_and_removed_pictures_are_named() -> None:
    difference = compare(dataset(BASE), dataset([*BASE[1:], ("new.jpg", b"four", "atlas", "train")]))
    assert difference.added == ["new.jpg"]
    assert difference.removed == ["train/atlas/1.jpg"]
    assert difference.relabelled == difference.moved == []


def test_a_changed_picture_is_removed_and_added() -> None:
    difference = compare(dataset(BASE), dataset([("train/atlas/1.jpg", b"other", "atlas", "train"), *BASE[1:]]))
    assert difference.added == difference.removed == ["train/atlas/1.jpg"]


def test_a_relabelled_picture_says_from_what_to_what() -> None:
    difference = compare(dataset(BASE), dataset([("train/luna/1.jpg", b"one", "luna", "train"), *BASE[1:]]))
    assert difference.relabelled == [Change("train/luna/1.jpg", "atlas", "luna")]
    assert difference.to_json() == {
        "identical": False,
        "added": [],
        "removed": [],
        "relabelled": [{"path": "train/luna/1.jpg", "from": "atlas", "to": "luna"}],
        "moved": [],
    }


def test_a_picture_moved_between_splits_says_from_where_to_where() -> None:
    difference = compare(dataset(BASE), dataset([*BASE[:2], ("train/luna/3.jpg", b"three", "luna", "train")]))
    assert difference.moved == [Change("train/luna/3.jpg", "test", "train")]
    assert difference.relabelled == difference.added == difference.removed == []


def test_a_second_copy_of_a_picture_is_added_and_its_first_unchanged() -> None:
    difference = compare(dataset(BASE), dataset([("a.jpg", b"one", "luna", "test"), *BASE]))
    assert difference.added == ["a.jpg"]
    assert difference.relabelled == difference.moved == []


def test_a_copy_that_stays_is_paired_with_itself_when_the_other_goes() -> None:
    twice = [("a.jpg", b"one", "luna", "test"), *BASE]
    difference = compare(dataset(twice), dataset(BASE))
    assert difference.removed == ["a.jpg"]
    assert difference.relabelled == difference.moved == []
