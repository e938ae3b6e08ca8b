"""The verdict: what is quarantined, what refuses the data, and what is told."""

import json

import pytest

from imago.config import ChecksConfig, DataConfig
from imago.data.dataset import ImageDataset
from imago.data.statistics import compute_statistics
from imago.data.validation import ValidationResult, validate
from imago.errors import DataRefused, ImagoError
from tests.pictures import png_that_claims
from tests.unit.data.flock import GOOD, bytes_of, flock
from tests.unit.data.pictures import encode, moth

CONFIG = DataConfig()

TROUBLE = (
    ("train/io/words.jpg", b"words", "io", "train"),
    ("train/io/cut.jpg", bytes_of("train/io/0.jpg")[:-200], "io", "train"),
    ("train/io/gone.jpg", b"", "io", "train"),
    ("train/luna/huge.png", png_that_claims(60_000, 60_000), "luna", "train"),
    ("train/luna/leak.jpg", bytes_of("test/luna/0.jpg"), "luna", "train"),
)


def verdict(dataset: ImageDataset, config: DataConfig = CONFIG) -> ValidationResult:
    return validate(dataset, compute_statistics(dataset, max_pixels=config.max_pixels), config)


def test_good_pictures_are_accepted() -> None:
    result = verdict(flock())
    assert result.verdict == "accepted"
    assert (result.reasons, result.quarantined) == ([], {})
    assert result.found == result.accepted == len(GOOD)
    assert result.fingerprint == flock().fingerprint
    result.raise_if_refused()


def test_bad_pictures_are_quarantined_with_their_reason_and_the_rest_is_accepted() -> None:
    result = verdict(flock(*TROUBLE))
    assert result.verdict == "accepted"
    assert (result.found, result.accepted) == (len(GOOD) + 5, len(GOOD))
    assert result.quarantined == {
        "train/io/cut.jpg": result.quarantined["train/io/cut.jpg"],
        "train/io/gone.jpg": "undecodable: its file is missing, empty, too large, locked, or outside the source",
        "train/io/words.jpg": "undecodable: it is not one of JPEG, PNG, WEBP, GIF, BMP, TIFF",
        "train/luna/huge.png": "too_many_pixels: it has more than 50,000,000 pixels",
        "train/luna/leak.jpg": "duplicate_across_splits: it is 'test/luna/0.jpg' again",
    }
    assert "Premature end" in result.quarantined["train/io/cut.jpg"]


def test_the_fingerprint_is_that_of_the_accepted_pictures() -> None:
    assert verdict(flock(*TROUBLE)).fingerprint == flock().fingerprint
    assert flock(*TROUBLE).without(verdict(flock(*TROUBLE)).quarantined).fingerprint == flock().fingerprint


def test_the_expectations_are_held_against_the_accepted_pictures() -> None:
    expectations = verdict(flock(*TROUBLE)).expectations
    assert expectations["success"]
    assert expectations["results"][0]["result"]["element_count"] == len(GOOD)


def test_a_class_with_one_picture_refuses_the_data_in_one_line() -> None:
    result = verdict(flock(("train/atlas/1.jpg", encode(moth(7, 1)), "atlas", "train")))
    assert result.verdict == "refused"
    with pytest.raises(DataRefused, match="'atlas' has 1") as error:
        result.raise_if_refused()
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3


def test_too_few_readable_pictures_refuse_the_data() -> None:
    left = flock(*TROUBLE, without=["train/io/4.jpg", "train/io/5.jpg"])
    assert verdict(left).reasons == ["1 class with fewer than 5 pictures to train on: 'io' has 4."]
    assert verdict(left, DataConfig(min_per_class=4)).verdict == "accepted"


def test_one_class_refuses_the_data() -> None:
    gone = [name for name, _, label, _ in GOOD if label != "io"]
    assert verdict(flock(without=gone)).reasons == ["there is one class only, 'io'; a classifier needs two."]


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_refuses_the_data(split: str) -> None:
    gone = [name for name, _, _, where in GOOD if where == split]
    assert verdict(flock(without=gone)).reasons == [f"the {split} split is empty."]


def test_nothing_left_refuses_the_data() -> None:
    rows = [(name, b"words", label, split) for name, _, label, split in GOOD]
    result = verdict(ImageDataset.from_rows(*zip(*rows, strict=True), origin="a test"))
    assert (result.verdict, result.accepted, result.expectations) == ("refused", 0, {})
    assert result.reasons == ["no picture is left."]


def test_a_check_made_to_refuse_does() -> None:
    config = DataConfig(checks=ChecksConfig(undecodable="refuse"))
    result = verdict(flock(TROUBLE[0]), config)
    assert result.verdict == "refused"
    assert result.reasons[0].startswith("1 picture cannot be decoded")


def test_what_cannot_be_decoded_never_passes_for_accepted() -> None:
    result = verdict(flock(TROUBLE[0]), DataConfig(checks=ChecksConfig(undecodable="off")))
    assert result.verdict == "refused"
    assert result.reasons[0].startswith("error: values to be null")


def test_the_json_is_what_data_check_prints() -> None:
    answer = json.loads(json.dumps(verdict(flock(*TROUBLE)).to_json()))
    assert answer["verdict"] == "accepted"
    assert answer["pictures"] == {"found": len(GOOD) + 5, "accepted": len(GOOD), "quarantined": 5}
    checks = {check["id"]: check for check in answer["checks"]}
    assert len(checks) == 22
    leak = checks["duplicate_across_splits"]
    assert (leak["severity"], leak["count"]) == ("quarantine", 1)
    assert leak["groups"] == [["test/luna/0.jpg", "train/luna/leak.jpg"]]
    assert checks["undecodable"]["pictures"] == ["train/io/cut.jpg", "train/io/gone.jpg", "train/io/words.jpg"]
    assert answer["fingerprint"] == flock().fingerprint


def test_the_same_data_gives_the_same_verdict_to_the_byte() -> None:
    assert verdict(flock(*TROUBLE)) == verdict(flock(*TROUBLE))


def test_statistics_of_other_data_are_refused() -> None:
    with pytest.raises(ImagoError, match="not of this data set"):
        validate(flock(), compute_statistics(flock(*TROUBLE)), CONFIG)


def test_data_of_which_most_would_leave_is_refused_with_the_cause() -> None:
    words = [(f"train/io/{number}x.jpg", b"words", "io", "train") for number in range(len(GOOD) + 1)]
    result = verdict(flock(*words))
    assert result.verdict == "refused"
    assert result.reasons[0].startswith(f"{len(words)} of {len(words) + len(GOOD)} pictures would be left out")
    assert "data.checks.undecodable=warn" in result.reasons[0]
    assert verdict(flock(*words), DataConfig(max_quarantined=1)).verdict == "accepted"


def test_of_copies_in_one_split_one_stays() -> None:
    copies = [(f"train/io/copy{number}.jpg", bytes_of("train/io/0.jpg"), "io", "train") for number in range(2)]
    result = verdict(flock(*copies), DataConfig(checks=ChecksConfig(duplicate_in_split="quarantine")))
    assert set(result.quarantined) == {name for name, *_ in copies}
    assert all("'train/io/0.jpg' again" in why for why in result.quarantined.values())


def test_a_copy_is_told_by_the_one_that_stays_and_its_name() -> None:
    one, other = (("train/io/p.jpg", "io"), ("train/luna/q.jpg", "luna"))
    copies = [(name, bytes_of("val/io/0.jpg"), label, "train") for name, label in (one, other)]
    result = verdict(flock(*copies))
    assert result.quarantined["train/io/p.jpg"] == "duplicate_across_splits: it is 'val/io/0.jpg' again"
    assert result.quarantined["train/luna/q.jpg"].endswith("it is 'val/io/0.jpg' again, there called 'io'")
