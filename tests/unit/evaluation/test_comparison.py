"""Two reports are compared on the same pictures, or not at all."""

import pytest

from imago.evaluation.comparison import compare
from tests.unit.evaluation.reports import report_of


def test_pictures_are_paired_by_their_bytes_not_by_their_order() -> None:
    right = [True, True, False, True, False, False]
    comparison = compare(report_of(right), report_of(right, order=[5, 3, 1, 0, 2, 4]))
    assert (comparison.only_challenger_right, comparison.only_champion_right, comparison.p_value) == (0, 0, 1.0)


def test_reports_on_other_pictures_are_never_paired() -> None:
    with pytest.raises(ValueError, match="same pictures"):
        compare(report_of([True] * 4), report_of([True] * 5))
