"""Every check has a severity, and the configuration has the last word on it."""

import pytest

from imago.config import ChecksConfig, DataConfig, load_config
from imago.errors import ConfigError
from tests.unit.data.flock import bytes_of, checked, flock

IDS = [
    "undecodable",
    "extension_mismatch",
    "too_many_pixels",
    "too_small",
    "near_blank",
    "dark",
    "bright",
    "blurred",
    "odd_aspect",
    "duplicate_in_split",
    "duplicate_across_splits",
    "label_conflict",
    "near_duplicate_in_split",
    "near_duplicate_across_splits",
    "class_missing_in_split",
    "class_too_small",
    "class_imbalance",
    "class_name_collision",
    "near_label_conflict",
    "unknown_test_class",
    "split_outlier",
    "version_shift",
]


def test_every_check_gives_a_result_with_a_sentence() -> None:
    results = checked(flock())
    assert list(results) == IDS == list(ChecksConfig.model_fields)
    for result in results.values():
        assert result.sentence.endswith(".")
        assert (result.count, result.pictures, result.groups, result.quarantined) == (0, [], [], [])


def test_an_unknown_check_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown key 'data.checks.blured'.*'data.checks.blurred'"):
        load_config("training", ["data.checks.blured=off"])


def test_a_whole_split_cannot_be_quarantined() -> None:
    with pytest.raises(ConfigError, match="split_outlier"):
        load_config("training", ["data.checks.split_outlier=quarantine"])


def test_a_check_that_is_off_finds_nothing() -> None:
    words = ("train/io/bad.jpg", b"words", "io", "train")
    result = checked(flock(words), DataConfig(checks=ChecksConfig(undecodable="off")))["undecodable"]
    assert (result.severity, result.count) == ("off", 0)


def test_a_warning_can_be_made_to_quarantine_and_the_other_way_round() -> None:
    copy = ("train/io/copy.jpg", bytes_of("test/io/1.jpg"), "io", "train")
    result = checked(flock(copy), DataConfig(checks=ChecksConfig(duplicate_across_splits="warn")))[
        "duplicate_across_splits"
    ]
    assert (result.count, result.quarantined) == (1, [])
    config = DataConfig(checks=ChecksConfig(extension_mismatch="quarantine"))
    renamed = ("train/io/x.png", bytes_of("test/io/1.jpg") + b"\0", "io", "train")
    assert checked(flock(renamed), config)["extension_mismatch"].quarantined == ["train/io/x.png"]
