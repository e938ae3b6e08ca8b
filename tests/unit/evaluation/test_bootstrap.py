import numpy as np
import pytest

from imago.evaluation.bootstrap import Outcomes
from imago.evaluation.calibration import expected_calibration_error, softmax
from imago.evaluation.metrics import compute_metrics


def drawn(count: int, seed: int, *, classes: int = 5, sharpened: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them before they were sharpened."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, size=(count, classes))
    labels = (softmax(logits).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return softmax(sharpened * logits), labels


def test_weights_count_a_picture_as_often_as_they_say() -> None:
    probabilities, labels = drawn(60, 1)
    weights = np.random.default_rng(0).integers(0, 4, size=60)
    found = {name: value[0] for name, value in Outcomes.of(probabilities, labels, 0.7).figures(weights[None]).items()}
    rows = np.repeat(np.arange(60), weights)
    names = tuple("abcde")
    repeated = compute_metrics(probabilities[rows], labels[rows], names, bootstrap_samples=0, seed=0, temperature=0.7)
    assert found == {name: pytest.approx(getattr(repeated, name)) for name in found}
    assert len(found) == 8


def test_intervals_hold_the_true_figure_about_as_often_as_they_say() -> None:
    truth = Outcomes.of(*drawn(200_000, 1), 1.0).figures(np.ones((1, 200_000)))
    held = dict.fromkeys(("log_loss", "mean_confidence", "macro_f1"), 0)
    for seed in range(60):
        ranges = Outcomes.of(*drawn(200, 100 + seed), 1.0).intervals(200, seed)
        for name in held:
            held[name] += ranges[name][0] <= truth[name][0] <= ranges[name][1]
    assert all(times >= 50 for times in held.values()), held


@pytest.mark.parametrize(
    ("pictures", "classes", "sharpened", "true"),
    [(500, 20, 1.0, 0.005), (500, 20, 1.5, 0.151), (200, 5, 1.2, 0.047), (200, 5, 2.0, 0.159), (100, 100, 1.0, 0.003)],
    ids=["calibrated", "too sure", "a little too sure", "far too sure", "calibrated, few pictures of many classes"],
)
def test_interval_of_the_calibration_error_holds_the_true_one_in_nine_of_ten_tests(
    pictures: int, classes: int, sharpened: float, true: float
) -> None:
    probabilities, labels = drawn(100_000, 1, classes=classes, sharpened=sharpened)
    truth = expected_calibration_error(probabilities, labels)
    assert truth == pytest.approx(true, abs=0.001)
    held = 0
    for seed in range(60):
        outcomes = Outcomes.of(*drawn(pictures, 100 + seed, classes=classes, sharpened=sharpened), 1.0)
        low, high = outcomes.intervals(200, seed)["expected_calibration_error"]
        held += low <= truth <= high
    assert held >= 54


def test_class_that_the_model_does_not_know_is_never_among_the_five_likeliest() -> None:
    probabilities = np.array([[0.7, 0.3, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]])
    assert Outcomes.of(probabilities, np.array([1, 2]), 1.0).figures(np.ones((1, 2)))["top5"] == 0.5


def test_interval_of_the_calibration_error_lies_around_it() -> None:
    for sharpened in (1.0, 2.0):
        probabilities, labels = drawn(300, 3, sharpened=sharpened)
        low, high = Outcomes.of(probabilities, labels, 1.0).intervals(300, 0)["expected_calibration_error"]
        assert 0 <= low < expected_calibration_error(probabilities, labels) < high < 0.3


@pytest.mark.parametrize(("counts", "low"), [((25, 25), 0.929), ((98, 2), 0.671)])
def test_a_model_that_is_always_right_is_not_held_to_be_certain(counts: tuple[int, int], low: float) -> None:
    labels = np.repeat([0, 1], counts)
    ranges = Outcomes.of(np.eye(2)[labels] * 0.8 + 0.1, labels, 1.0).intervals(100, 0)
    for name in ("balanced_accuracy", "macro_f1"):
        assert ranges[name] == pytest.approx((low, 1.0), abs=0.001)
    assert ranges["top5"] == pytest.approx((1 / (1 + 1.96**2 / sum(counts)), 1.0), abs=0.001)


def test_intervals_of_a_model_that_is_seldom_wrong_hold_the_true_figure() -> None:
    rng, labels, held = np.random.default_rng(0), np.repeat(np.arange(10), 10), 0
    for seed in range(100):
        answers = np.where(rng.random(100) < 0.02, (labels + 1) % 10, labels)
        low, high = Outcomes.of(np.eye(10)[answers], labels, 1.0).intervals(200, seed)["balanced_accuracy"]
        held += low <= 0.98 <= high
    assert held >= 95


def test_many_pictures_are_drawn_in_parts_and_alike() -> None:
    probabilities, labels = drawn(50, 2)
    ranges = Outcomes.of(probabilities, labels, 1.0).intervals(400, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imago.evaluation.bootstrap._AT_ONCE", 7 * 50)
        assert Outcomes.of(probabilities, labels, 1.0).intervals(400, 5) == ranges
