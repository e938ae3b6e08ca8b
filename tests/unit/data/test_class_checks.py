"""Defects of classes and splits are found, judged by the pictures that stay."""

import numpy as np
import pytest
from PIL import Image

from imago.config import ChecksConfig, DataConfig
from imago.data.class_checks import version_shift
from imago.data.dataset import ImageDataset
from imago.data.statistics import compute_statistics
from imago.data.transforms import decode
from tests.unit.data.flock import checked, flock
from tests.unit.data.pictures import encode, moth


def of(label: str, split: str, count: int, *, species: int = 5, start: int = 0) -> list[tuple[str, bytes, str, str]]:
    return [
        (f"{split}/{label}/{number}.jpg", encode(moth(species, 900 + start + number, 48)), label, split)
        for number in range(count)
    ]


def large(changed: str | None = None, gain: float = 1.0) -> ImageDataset:
    """Two classes with 30 pictures in each split, one split of which is brighter."""
    rows = []
    for place, split in enumerate(("train", "val", "test")):
        for species in (0, 1):
            for number in range(30):
                picture = moth(species, 1000 * place + number, 32)
                if split == changed:
                    picture = (picture * gain).clip(0, 255).astype(np.uint8)
                rows.append((f"{split}/{species}/{number}.png", encode(picture, "PNG"), str(species), split))
    return ImageDataset.from_rows(*zip(*rows, strict=True), origin="a test")


def test_a_class_with_one_picture_refuses_the_data() -> None:
    result = checked(flock(*of("atlas", "train", 1)))["class_too_small"]
    assert (result.count, result.severity, result.classes) == (1, "refuse", ["atlas"])
    assert "'atlas' has 1" in result.sentence


def test_a_class_is_counted_without_what_is_quarantined() -> None:
    words = [(f"train/atlas/bad{number}.jpg", b"words", "atlas", "train") for number in range(3)]
    enough = checked(flock(*of("atlas", "train", 5), *words))["class_too_small"]
    assert enough.count == 0
    short = checked(flock(*of("atlas", "train", 4), *words))["class_too_small"]
    assert "'atlas' has 4" in short.sentence


def test_a_class_that_is_all_quarantined_is_still_missed() -> None:
    words = [(f"train/atlas/{number}.jpg", f"words {number}".encode(), "atlas", "train") for number in range(6)]
    assert checked(flock(*words))["class_too_small"].classes == ["atlas"]


def test_how_few_are_too_few_is_configured() -> None:
    assert checked(flock(), DataConfig(min_per_class=6))["class_too_small"].count == 0
    assert checked(flock(), DataConfig(min_per_class=7))["class_too_small"].classes == ["io", "luna", "vapourer"]


def test_small_classes_can_be_left_out_instead() -> None:
    config = DataConfig(checks=ChecksConfig(class_too_small="quarantine"))
    result = checked(flock(*of("atlas", "train", 2), *of("atlas", "test", 1, start=50)), config)["class_too_small"]
    assert result.quarantined == ["test/atlas/0.jpg", "train/atlas/0.jpg", "train/atlas/1.jpg"]


def test_a_class_in_test_but_not_in_train_refuses_the_data() -> None:
    results = checked(flock(*of("atlas", "test", 2)))
    assert results["unknown_test_class"].severity == "refuse"
    assert results["unknown_test_class"].classes == ["atlas"]
    assert results["class_too_small"].count == 0


def test_a_class_without_test_pictures_is_told() -> None:
    result = checked(flock(without=["test/luna/0.jpg", "test/luna/1.jpg"]))["class_missing_in_split"]
    assert result.classes == ["luna"]
    assert "'luna' in test" in result.sentence


def test_a_class_with_a_tenth_of_the_largest_is_rare() -> None:
    result = checked(flock(*of("atlas", "train", 60)))["class_imbalance"]
    assert result.classes == ["io", "luna", "vapourer"]
    assert checked(flock(*of("atlas", "train", 59)))["class_imbalance"].count == 0


@pytest.mark.parametrize("other", ["Io", " io", "IO", "i_o", "ｉｏ"])
def test_names_that_differ_in_spelling_only_are_told(other: str) -> None:
    result = checked(flock(*of(other, "train", 5)))["class_name_collision"]
    assert (result.count, result.severity) == (2, "warn")
    assert set(result.classes) == {"io", other}


def test_a_split_from_another_camera_is_told() -> None:
    assert checked(large())["split_outlier"].count == 0
    result = checked(large("test", gain=1.7))["split_outlier"]
    assert result.count == 1
    assert "test in brightness" in result.sentence


def test_a_version_is_compared_with_the_one_before() -> None:
    before, now = compute_statistics(large()), compute_statistics(large("train", gain=0.5))
    assert version_shift(before, before).count == 0
    darker = version_shift(now, before)
    assert darker.count == 1
    assert "brightness" in darker.sentence


def test_new_and_lost_classes_are_told_against_the_version_before() -> None:
    before = compute_statistics(flock())
    now = compute_statistics(flock(*of("atlas", "train", 5), without=[f"train/io/{n}.jpg" for n in range(6)]))
    result = version_shift(now, before)
    assert "new classes 'atlas'" in result.sentence
    assert "no longer there 'io'" in result.sentence


def test_blurring_does_not_pass_for_the_same_split() -> None:
    def blurred(image: bytes) -> bytes:
        return encode(np.asarray(Image.fromarray(decode(image)).resize((8, 8)).resize((32, 32))), "PNG")

    rows = [
        (row["id"], blurred(row["image"]) if row["split"] == "val" else row["image"], row["label"], row["split"])
        for batch in large().batches()
        for row in batch.to_pylist()
    ]
    result = checked(ImageDataset.from_rows(*zip(*rows, strict=True), origin="a test"))["split_outlier"]
    assert "val in" in result.sentence
    assert "sharpness" in result.sentence


@pytest.mark.parametrize(
    "names", [("1.5", "15"), ("-1", "1"), ("C#", "C++"), ("😀", "😡"), ("कल", "काला"), ("+", "-"), ("moth 1", "moth 2")]
)
def test_names_that_mean_different_things_are_not_taken_for_one(names: tuple[str, str]) -> None:
    rows = [(f"train/{name}/0.jpg", encode(moth(1, number)), name, "train") for number, name in enumerate(names)]
    assert checked(flock(*rows))["class_name_collision"].count == 0
