import numpy as np
import pytest

from imago.evaluation.calibration import (
    expected_calibration_error,
    fit_reject_threshold,
    fit_temperature,
    reliability,
    softmax,
)


def drawn(temperature: float, *, count: int = 4000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits), the logits then multiplied by the temperature."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2, size=(count, classes))
    labels = (softmax(logits).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return temperature * logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_undoes_the_factor_that_logits_were_multiplied_by(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def test_temperature_lowers_the_calibration_error_and_keeps_the_answers() -> None:
    logits, labels = drawn(4.0)
    before, after = softmax(logits), softmax(logits, fit_temperature(logits, labels))
    assert expected_calibration_error(before, labels) > 0.15
    assert expected_calibration_error(after, labels) < 0.03
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_a_model_with_everything_right_is_not_fitted_to_certainty() -> None:
    labels = np.arange(20) % 4
    logits = 8.0 * np.eye(4)[labels]
    confidence = softmax(logits, fit_temperature(logits, labels)).max(axis=1)
    assert 0.9 < confidence.min() < 0.999


def test_temperature_of_no_pictures_is_one() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0


def test_huge_logits_overflow_nothing() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]])
    with np.errstate(over="raise", invalid="raise"):
        assert fit_temperature(logits, np.array([0, 1, 1])) == pytest.approx(20.0, rel=1e-3)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(np.array([[np.nan, 1.0]]), np.array([0]))


def test_calibration_error_is_the_distance_between_claim_and_truth() -> None:
    probabilities = np.array([[0.8, 0.2]] * 10)
    labels = np.array([0] * 5 + [1] * 5)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)
    (only,) = reliability(probabilities, labels)
    assert (only.count, only.confidence, only.accuracy) == (10, pytest.approx(0.8), 0.5)


def test_full_confidence_falls_into_the_last_bin() -> None:
    (only,) = reliability(np.array([[1.0, 0.0]]), np.array([0]), bins=10)
    assert (only.low, only.high, only.count) == (0.9, 1.0, 1)


CONFIDENCE = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
PROBABILITIES = np.stack([CONFIDENCE, 1 - CONFIDENCE], axis=1)
LABELS = np.array([0, 0, 0, 1, 1])  # the two least sure are wrong


def test_reject_threshold_is_the_lowest_that_keeps_the_error() -> None:
    assert fit_reject_threshold(PROBABILITIES, LABELS, target_error=0.0) == pytest.approx(0.75)
    assert fit_reject_threshold(PROBABILITIES, LABELS, target_error=0.25) == pytest.approx(0.65)
    assert fit_reject_threshold(PROBABILITIES, LABELS, target_error=0.5) == 0.0


def test_reject_threshold_withholds_all_where_none_is_right() -> None:
    all_wrong = np.ones(5, dtype=int)
    assert fit_reject_threshold(PROBABILITIES, all_wrong, target_error=0.1) > 0.95


def test_reject_threshold_does_not_part_pictures_of_one_confidence() -> None:
    probabilities = np.array([[0.9, 0.1]] * 4)
    threshold = fit_reject_threshold(probabilities, np.array([0, 0, 0, 1]), target_error=0.1)
    assert threshold > 0.9


def test_reject_threshold_by_coverage_answers_that_share() -> None:
    assert fit_reject_threshold(PROBABILITIES, LABELS, coverage=0.6) == pytest.approx(0.75)
    assert fit_reject_threshold(PROBABILITIES, LABELS, coverage=1.0) == 0.0


def test_reject_threshold_parts_no_pictures_that_the_endpoint_cannot_tell_apart() -> None:
    confidence = np.array([1 - 1e-12, 1 - 1e-11, 1 - 1e-10, 0.6])  # the first three are 1 in float32
    threshold = fit_reject_threshold(
        np.stack([confidence, 1 - confidence], axis=1), np.array([0, 1, 1, 0]), coverage=0.25
    )
    assert threshold == pytest.approx(0.8)
    all_wrong = np.ones(4, dtype=int)
    threshold = fit_reject_threshold(np.stack([confidence, 1 - confidence], axis=1), all_wrong, target_error=0.1)
    assert not (confidence.astype(np.float32) >= threshold).any()


def test_reject_threshold_wants_one_aim() -> None:
    with pytest.raises(ValueError, match="either"):
        fit_reject_threshold(PROBABILITIES, LABELS)
