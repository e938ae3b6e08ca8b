import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from imago.errors import ImagoError
from imago.evaluation.metrics import compute_metrics, wilson_interval

CLASSES = tuple("abcdef")


def answers(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 6, size=count)
    probabilities = rng.dirichlet(np.ones(6), size=count) + 0.5 * np.eye(6)[labels] * rng.random((count, 1))
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_figures_agree_with_scikit_learn() -> None:
    probabilities, labels = answers()
    found = compute_metrics(probabilities, labels, CLASSES, bootstrap_samples=0, seed=0)
    said = probabilities.argmax(axis=1)
    assert found.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, said))
    assert found.balanced_accuracy == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, said))
    assert found.macro_f1 == pytest.approx(sklearn_metrics.f1_score(labels, said, average="macro"))
    assert found.log_loss == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    assert found.top5 == pytest.approx(sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert np.array_equal(found.confusion, sklearn_metrics.confusion_matrix(labels, said))
    precision = sklearn_metrics.precision_score(labels, said, average=None)
    assert [entry.precision for entry in found.per_class] == pytest.approx(list(precision))


def test_a_class_without_pictures_is_left_out_of_the_means() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    found = compute_metrics(probabilities, np.array([0, 1]), ("a", "b", "absent"), bootstrap_samples=20, seed=0)
    assert (found.balanced_accuracy, found.macro_f1) == (1.0, 1.0)
    absent = found.per_class[2]
    assert (absent.support, absent.precision, absent.recall, absent.f1) == (0, None, None, None)


def test_bootstrap_interval_is_repeatable_and_holds_the_figure() -> None:
    probabilities, labels = answers()
    first = compute_metrics(probabilities, labels, CLASSES, bootstrap_samples=200, seed=5)
    again = compute_metrics(probabilities, labels, CLASSES, bootstrap_samples=200, seed=5)
    assert first == again
    assert first.macro_f1_interval is not None
    assert first.macro_f1_interval.low < first.macro_f1 < first.macro_f1_interval.high


def test_every_figure_has_an_interval() -> None:
    probabilities, labels = answers()
    found = compute_metrics(probabilities, labels, CLASSES, bootstrap_samples=200, seed=5)
    for name in ("accuracy", "top5", "balanced_accuracy", "macro_f1", "log_loss", "mean_confidence"):
        interval = getattr(found, f"{name}_interval")
        assert interval.low < getattr(found, name) < interval.high, name
    for entry in found.per_class:
        assert entry.recall_interval is not None
        assert entry.precision_interval is not None
        assert entry.recall_interval.low < (entry.recall or 0) < entry.recall_interval.high
        assert entry.precision_interval.low < (entry.precision or 0) < entry.precision_interval.high


def test_what_the_temperature_did_is_told() -> None:
    probabilities, labels = answers()
    sharp = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    before = compute_metrics(sharp, labels, CLASSES, bootstrap_samples=0, seed=0)
    after = compute_metrics(probabilities, labels, CLASSES, bootstrap_samples=50, seed=0, temperature=3.0)
    assert after.uncalibrated_log_loss == pytest.approx(before.log_loss)
    assert after.uncalibrated_expected_calibration_error == pytest.approx(before.expected_calibration_error)
    assert after.uncalibrated_log_loss_interval is not None
    assert after.uncalibrated_log_loss_interval.low < before.log_loss < after.uncalibrated_log_loss_interval.high
    assert before.uncalibrated_log_loss == pytest.approx(before.log_loss)


def test_wilson_interval_of_a_perfect_score_is_not_certainty() -> None:
    interval = wilson_interval(20, 20)
    assert (interval.low, interval.high) == (pytest.approx(0.8389, abs=1e-4), 1.0)
    assert wilson_interval(0, 48).low == 0.0
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0.0, 1.0)


def test_confusions_lists_the_commonest_first() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    said = np.eye(3)[[1, 1, 2, 1, 0]]
    found = compute_metrics(said, labels, ("a", "b", "c"), bootstrap_samples=0, seed=0)
    assert found.confusions(2) == [("a", "b", 2), ("a", "c", 1)]
    assert found.chance == 0.6


def test_no_pictures_is_one_clear_error() -> None:
    with pytest.raises(ImagoError, match="no test pictures"):
        compute_metrics(np.zeros((0, 2)), np.zeros(0, dtype=int), ("a", "b"), bootstrap_samples=0, seed=0)


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ImagoError, match="not finite"):
        compute_metrics(np.array([[np.nan, 1.0]]), np.array([0]), ("a", "b"), bootstrap_samples=0, seed=0)
