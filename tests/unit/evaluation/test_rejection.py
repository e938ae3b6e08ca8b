import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from imago.evaluation.bootstrap import wilson
from imago.evaluation.rejection import area_under_roc, judge_rejection, judge_strangers, risk_by_coverage

CONFIDENCE = np.array([0.9, 0.5, 0.8, 0.6])
RIGHT = np.array([True, False, True, False])


def test_error_grows_with_what_is_answered_where_the_unsure_are_wrong() -> None:
    assert risk_by_coverage(CONFIDENCE, RIGHT) == pytest.approx([0, 0, 1 / 3, 1 / 2])


def test_order_of_answers_of_one_confidence_does_not_matter() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    right = np.array([True, True, False, False])
    expected = [0, 1 / 3, 4 / 9, 1 / 2]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        assert risk_by_coverage(confidence[order], right[order]) == pytest.approx(expected)


def test_threshold_is_judged_by_what_stands() -> None:
    found = judge_rejection(CONFIDENCE, RIGHT, CONFIDENCE < 0.6)
    assert (found.coverage, found.error) == (0.75, pytest.approx(1 / 3))
    assert found.error_interval is not None
    assert found.error_interval.low < 1 / 3 < found.error_interval.high
    assert found.aurc == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert [(point.coverage, point.error) for point in found.curve] == [
        (0.25, 0), (0.5, 0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5),
    ]  # fmt: skip


def test_where_everything_is_withheld_there_is_no_error() -> None:
    found = judge_rejection(CONFIDENCE, RIGHT, np.ones(4, dtype=bool))
    assert (found.coverage, found.error, found.error_interval) == (0.0, None, None)


def test_curve_of_many_pictures_has_a_hundred_points() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(12_345)
    found = judge_rejection(confidence, rng.random(12_345) < confidence, confidence < 0.5)
    assert len(found.curve) == 100
    assert (found.curve[0].coverage, found.curve[-1].coverage) == (pytest.approx(0.01, abs=1e-4), 1.0)
    assert found.aurc == pytest.approx(1 / 4, abs=0.01)  # ∫ (c / 2) dc


def test_strangers_are_told_apart_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(1)
    own, strange = rng.random(200).round(2), (0.7 * rng.random(80)).round(2)
    found = judge_strangers("80 rocks", strange, (strange < 0.3).tolist(), own)
    truth = np.array([1] * 200 + [0] * 80)
    assert found.auroc == pytest.approx(roc_auc_score(truth, np.concatenate([own, strange])))
    assert (found.count, found.withheld) == (80, (strange < 0.3).sum())
    assert found.withheld_interval.low < found.withheld_share < found.withheld_interval.high


@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize(("positives", "negatives"), [(60, 40), (100, 10), (3, 100)])
def test_the_interval_of_an_area_holds_the_true_one_about_as_often_as_it_says(
    positives: int, negatives: int, shift: float
) -> None:
    held = _held(positives, negatives, shift)
    assert held >= 0.93
    assert min(positives, negatives) < 10 or held <= 0.98  # three tell little of their own spread


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 100), (100, 1), (1, 1)])
def test_one_picture_does_not_make_an_area_certain(positives: int, negatives: int, shift: float) -> None:
    assert _held(positives, negatives, shift) >= 0.97


def _held(positives: int, negatives: int, shift: float) -> float:
    """Return how often the interval holds the true area, of two normal scores of equal spread."""
    rng, true = np.random.default_rng(0), norm.cdf(shift / 2**0.5)
    held = 0
    for _ in range(400):
        area, interval = area_under_roc(rng.normal(shift, size=positives), rng.normal(size=negatives))
        assert 0 <= interval.low <= area <= interval.high <= 1
        held += interval.low <= true <= interval.high
    return held / 400


def test_pairs_that_are_all_in_order_do_not_make_an_area_certain() -> None:
    area, interval = area_under_roc(np.arange(10.0) + 5, np.arange(5.0))
    assert (area, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(wilson(1.0, 5)[0])
    assert 0.5 < interval.low < 0.6
