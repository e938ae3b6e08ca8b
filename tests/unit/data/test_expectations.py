"""Great Expectations' suite over the table of pictures."""

from pathlib import Path

import pytest
import yaml

from imago.config import DataConfig
from imago.data.expectations import SUITE, describe, expect, failures, load_suite
from imago.data.statistics import PictureTable, compute_statistics
from imago.errors import ConfigError
from tests.unit.data.flock import flock

CONFIG = DataConfig()


@pytest.fixture(scope="module")
def table() -> PictureTable:
    return compute_statistics(flock())


def suite(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "expectations.yaml"
    path.write_text(yaml.safe_dump(list(rows)), encoding="utf-8")
    return path


def test_good_pictures_meet_the_suite(table: PictureTable) -> None:
    result = expect(table, CONFIG)
    assert result["success"]
    assert result["statistics"]["evaluated_expectations"] == len(load_suite(SUITE))


def test_the_result_is_the_same_each_time(table: PictureTable) -> None:
    assert expect(table, CONFIG) == expect(table, CONFIG)


def test_a_label_of_blanks_is_a_critical_failure(table: PictureTable) -> None:
    changed = PictureTable(table.frame.assign(label=["  ", *table.frame["label"][1:]]))
    result = expect(changed, CONFIG)
    [failure] = failures(result, "critical")
    assert failure.startswith("label: values to match regex")
    assert failure.endswith(f"1 of {len(table)} are not")
    assert len(failures(result, "warning")) == 1  # blanks at its ends


def test_a_line_break_in_a_label_is_no_failure(table: PictureTable) -> None:
    result = expect(PictureTable(table.frame.assign(label=["a\nb", *table.frame["label"][1:]])), CONFIG)
    assert failures(result, "critical") == failures(result, "warning") == []


def test_pictures_mostly_dark_are_a_warning(table: PictureTable) -> None:
    [failure] = failures(expect(PictureTable(table.frame.assign(brightness=0.01)), CONFIG), "warning")
    assert failure.startswith("brightness")


def test_the_limit_of_pixels_is_the_configured_one(table: PictureTable) -> None:
    [failure] = failures(expect(table, DataConfig(max_pixels=64 * 64 - 1)), "critical")
    assert "pixels" in failure
    assert "4095" in failure


def test_an_outcome_is_described_in_a_sentence() -> None:
    row = {
        "success": True,
        "expectation_config": {
            "type": "expect_column_mean_to_be_between",
            "kwargs": {"column": "width", "min_value": 3},
        },
        "result": {"observed_value": 64.0},
    }
    assert describe(row) == "width: mean to be between (min value 3); it is 64.0"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"type": "expect_column_values_to_be_betwen"}, "Did you mean 'expect_column_values_to_be_between'"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {"colum": "id"}}, "cannot be used"),
        ({"type": "expect_column_values_to_be_null", "kwargs": {"column": "weight"}}, '"weight"'),
        ({"typ": "expect_column_values_to_be_null"}, "type: Field required"),
        ({"type": "expect_column_values_to_be_null", "severity": "dire"}, "severity"),
    ],
)
def test_an_expectation_that_cannot_be_used_is_named(
    row: dict[str, object], told: str, table: PictureTable, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        expect(table, CONFIG, suite(tmp_path, row))
    assert "\n" not in str(error.value)
    assert "expectations.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["- [", "type: expect_column_values_to_be_null", ""])
def test_a_suite_that_is_no_list_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expectations\.yaml"):
        load_suite(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_suite(tmp_path / "gone.yaml")
