import numpy as np
import pytest

from imago.evaluation.calibration import softmax
from imago.evaluation.metrics import Interval, compute_metrics
from imago.evaluation.rejection import Strangers, judge_rejection
from imago.evaluation.remarks import magnitude, percent, remarks
from imago.evaluation.robustness import RobustnessResult
from imago.evaluation.slices import Slice
from tests.unit.evaluation.reports import report_of, rights


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0.934, "93%"), (0.996, "99.6%"), (0.004, "0.4%"), (1.0, "100%"), (0.0, "0%")]
)
def test_a_share_is_said_as_a_person_would(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (940, "940"),
        (5_432, "5.4 thousand"),
        (1_620_356, "1.6 million"),
        (547_000_000, "547 million"),
        (4_500_000_000, "4.5 billion"),
    ],
)
def test_a_large_count_is_said_as_a_person_would(count: int, text: str) -> None:
    assert magnitude(count) == text


def test_a_model_that_claims_too_much_is_called_too_sure() -> None:
    (bad, *_) = remarks(report_of(rights(30, 50), confidence=0.95))
    assert not bad.good
    assert (
        bad.text == "Its confidence is off by 35.0 points: it claims 95% on average, and 60% come true. It is too sure."
    )


def test_a_calibrated_model_of_few_test_pictures_is_not_scolded_and_the_interval_is_said() -> None:
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(0, 2, size=(100, 100)))
    labels = (probabilities.cumsum(axis=1) < rng.random((100, 1))).sum(axis=1)
    for sharpened, good in ((1.0, True), (3.0, False)):
        claimed = softmax(sharpened * np.log(probabilities))
        names = tuple(f"species {index}" for index in range(100))
        metrics = compute_metrics(claimed, labels, names, bootstrap_samples=300, seed=0)
        around = metrics.expected_calibration_error_interval
        assert metrics.expected_calibration_error > 0.05
        assert around is not None
        (found,) = (
            remark
            for remark in remarks(report_of(rights(2, 2)).model_copy(update={"metrics": metrics}))
            if "confidence" in remark.text
        )
        assert found.good is good
        assert f"points ({100 * around.low:.1f}–{100 * around.high:.1f})" in found.text
        assert found.text.startswith("Nothing speaks against" if good else "Its confidence is off by")


def test_the_weakest_class_is_named_with_what_it_is_taken_for() -> None:
    report = report_of([row % 2 == 0 or row < 4 for row in range(20)])
    texts = [remark.text for remark in remarks(report)]
    assert "Weakest class: luna, 2 of 10 right, mostly taken for atlas (8)." in texts


def test_bad_news_comes_first() -> None:
    worst = RobustnessResult(corruption="colour_cast", strength=3, count=50, clean_accuracy=0.9, accuracy=0.4)
    weak = Slice(
        by="brightness",
        value="dark",
        count=17,
        accuracy=0.5,
        interval=Interval(low=0.3, high=0.7),
        p_value=0.001,
        weak=True,
    )
    report = report_of(rights(45, 50)).model_copy(update={"robustness": (worst,), "slices": (weak,), "rejected": 3})
    found = remarks(report)
    assert [remark.good for remark in found] == sorted(remark.good for remark in found)
    texts = [remark.text for remark in found]
    assert "Most hurt by colour cast (strong): from 90% to 40%." in texts
    assert "Weak where brightness is “dark”: 50% of 17 right." in texts
    assert "It withholds 3 answers (6%) as too unsure." in texts


def test_a_model_that_answers_strangers_is_not_praised_for_it() -> None:
    strangers = Strangers(what="80 rocks", count=80, withheld=8, auroc=0.7)
    rejection = judge_rejection(np.array([0.9, 0.8]), np.array([True, True]), np.array([False, False]), strangers)
    texts = {
        remark.text: remark.good
        for remark in remarks(report_of(rights(45, 50)).model_copy(update={"rejection": rejection}))
    }
    text = (
        "Shown what is none of its classes (80 rocks), it withholds 10% of its answers, and is less sure than of its "
        "own in 70% of all pairs."
    )
    assert texts[text] is False


def test_classes_without_test_pictures_are_not_called_weak() -> None:
    metrics = compute_metrics(np.eye(3)[[0, 1]], np.array([0, 1]), ("a", "b", "c"), bootstrap_samples=0, seed=0)
    report = report_of(rights(2, 2)).model_copy(update={"metrics": metrics})
    assert "No class is left behind: all of every class are right." in [remark.text for remark in remarks(report)]
