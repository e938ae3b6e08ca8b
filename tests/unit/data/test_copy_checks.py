"""Copies and conflicts are found, in groups, and the right copy leaves."""

import numpy as np
import pytest
from PIL import Image

from imago.config import ChecksConfig, DataConfig
from imago.data.transforms import decode
from tests.unit.data.flock import bytes_of, checked, flock
from tests.unit.data.pictures import encode

NEAR = ("near_duplicate_in_split", "near_duplicate_across_splits", "near_label_conflict")


def again(name: str) -> bytes:
    """Encode a picture anew, a little smaller and coarser."""
    picture = Image.fromarray(decode(bytes_of(name))).resize((60, 60))
    return encode(np.asarray(picture), quality=70)


def test_the_same_picture_twice_in_a_split_is_told_and_stays() -> None:
    result = checked(flock(("train/io/copy.jpg", bytes_of("train/io/1.jpg"), "io", "train")))["duplicate_in_split"]
    assert (result.count, result.severity, result.quarantined) == (1, "warn", [])
    assert result.groups == [["train/io/1.jpg", "train/io/copy.jpg"]]
    assert result.pictures == ["train/io/1.jpg", "train/io/copy.jpg"]


@pytest.mark.parametrize(
    ("original", "split", "leaves"),
    [
        ("test/io/0.jpg", "train", "train/io/copy.jpg"),
        ("test/io/0.jpg", "val", "val/io/copy.jpg"),
        ("val/io/0.jpg", "train", "train/io/copy.jpg"),
        ("train/io/0.jpg", "test", "train/io/0.jpg"),
        ("train/io/0.jpg", "val", "train/io/0.jpg"),
    ],
)
def test_of_a_picture_in_two_splits_the_copy_that_was_to_be_learnt_leaves(
    original: str, split: str, leaves: str
) -> None:
    copy = (f"{split}/io/copy.jpg", bytes_of(original), "io", split)
    result = checked(flock(copy))["duplicate_across_splits"]
    assert result.count == 1
    assert result.groups == [sorted([original, copy[0]])]
    assert result.quarantined == [leaves]


def test_a_picture_in_all_three_splits_stays_in_test_only() -> None:
    data = bytes_of("test/io/0.jpg")
    copies = [(f"{split}/io/copy{number}.jpg", data, "io", split) for split in ("train", "val") for number in (1, 2)]
    result = checked(flock(*copies))["duplicate_across_splits"]
    assert result.count == 1
    assert result.quarantined == sorted(copy[0] for copy in copies)


def test_the_same_picture_under_two_names_leaves_under_both() -> None:
    results = checked(flock(("train/luna/copy.jpg", bytes_of("train/io/2.jpg"), "luna", "train")))
    conflict = results["label_conflict"]
    assert conflict.count == 1
    assert conflict.quarantined == ["train/io/2.jpg", "train/luna/copy.jpg"]
    assert results["duplicate_in_split"].count == 0


@pytest.mark.parametrize(
    ("original", "copy", "leaves"),
    [
        ("train/io/2.jpg", "test/luna/copy.jpg", ["train/io/2.jpg"]),
        ("test/io/0.jpg", "train/luna/copy.jpg", ["train/luna/copy.jpg"]),
        ("val/io/0.jpg", "train/luna/copy.jpg", ["train/luna/copy.jpg", "val/io/0.jpg"]),
        ("test/io/0.jpg", "test/luna/copy.jpg", ["test/io/0.jpg", "test/luna/copy.jpg"]),
    ],
)
def test_under_two_names_what_is_in_test_stays_unless_test_contradicts_itself(
    original: str, copy: str, leaves: list[str]
) -> None:
    split, label, _ = copy.split("/")
    results = checked(flock((copy, bytes_of(original), label, split)))
    assert results["label_conflict"].count == 1
    assert results["label_conflict"].quarantined == leaves
    assert results["duplicate_across_splits"].count == int(not original.startswith(split))


def test_two_pairs_are_two_groups() -> None:
    copies = [(f"train/{name}/copy.jpg", bytes_of(f"train/{name}/1.jpg"), name, "train") for name in ("io", "luna")]
    result = checked(flock(*copies))["duplicate_in_split"]
    assert result.count == len(result.groups) == 2


@pytest.mark.parametrize(
    ("check", "split", "label"),
    [
        ("near_duplicate_in_split", "train", "io"),
        ("near_duplicate_across_splits", "test", "io"),
        ("near_label_conflict", "train", "luna"),
    ],
)
def test_nearly_the_same_picture_is_told_as_what_it_is(check: str, split: str, label: str) -> None:
    name = f"{split}/{label}/copy.jpg"
    results = checked(flock((name, again("train/io/3.jpg"), label, split)))
    assert {near: results[near].count for near in NEAR if results[near].count} == {check: 1}
    assert results[check].groups == [sorted(["train/io/3.jpg", name])]
    assert results[check].quarantined == (["train/io/3.jpg"] if split == "test" else [])


def test_exact_copies_are_not_nearly_the_same() -> None:
    results = checked(flock(("test/io/copy.jpg", bytes_of("train/io/1.jpg"), "io", "test")))
    assert [results[near].count for near in NEAR] == [0, 0, 0]


def test_a_near_copy_under_another_name_can_be_made_to_leave() -> None:
    config = DataConfig(checks=ChecksConfig(near_label_conflict="quarantine"))
    result = checked(flock(("train/luna/copy.jpg", again("train/io/3.jpg"), "luna", "train")), config)
    assert result["near_label_conflict"].quarantined == ["train/io/3.jpg", "train/luna/copy.jpg"]
