import numpy as np
import pytest

from imago.evaluation.calibration import softmax
from imago.evaluation.metrics import Interval, compute_metrics
from imago.evaluation.rejection import Strangers, judge_rejection
from imago.evaluation.remarks import magnitude, percent, remarks
from imago.evaluation.robustness import RobustnessResult
from imago.evaluation.slices import Slice
from imago.serving.card import kept
from tests.unit.evaluation.reports import CLASSES, report_of, rights


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (0.934, "93%"),
        (0.996, "99.6%"),
        (0.004, "0.4%"),
        (1.0, "100%"),
        (0.0, "0%"),
        (0.9996, "99.9%"),
        (0.0004, "0.1%"),
    ],
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


def test_a_model_that_says_one_thing_of_all_pictures_gets_no_praise_for_what_that_brings() -> None:
    first, *others = remarks(report_of([row % 2 == 0 for row in range(50)], confidence=0.5))
    assert first.text == "It is no better than always naming the commonest class, which would reach 50%."
    assert not first.good
    assert not any("confidence" in one.text or "bears" in one.text for one in others)


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
        assert found.text.startswith("Its confidence is off by")
        assert found.text.endswith("That may be chance, with so few pictures." if good else "It is too sure.")


@pytest.mark.parametrize(
    ("error", "low", "good", "end"),
    [
        (0.04, 0.0, True, "and is off by 4.0 points (0.0–50.0)."),
        (0.286, 0.0, False, "That may be chance, with so few pictures."),
        (0.107, 0.042, True, "That may be less than 5% in truth, with so few pictures."),
        (0.107, 0.06, False, "It is too modest."),
    ],
)
def test_chance_is_named_only_where_it_explains_all_and_praise_given_only_where_the_gate_gives_it(
    error: float, low: float, good: bool, end: str
) -> None:
    report = report_of(rights(45, 50), confidence=0.8)
    found = {
        "expected_calibration_error": error,
        "expected_calibration_error_interval": Interval(low=low, high=0.5),
    }
    report = report.model_copy(update={"metrics": report.metrics.model_copy(update=found)})
    (remark,) = (one for one in remarks(report) if "confidence" in one.text)
    assert (remark.good, remark.text[-len(end) :]) == (good, end)


def slice_of(by: str, value: str, *, weak: bool) -> Slice:
    around = Interval(low=0.3, high=0.7)
    return Slice(by=by, value=value, count=17, accuracy=0.5, interval=around, p_value=0.001, weak=weak)


def test_a_weak_class_is_named_with_what_it_is_taken_for() -> None:
    report = report_of([row % 2 == 0 or row < 4 for row in range(20)])
    weak, both = (
        (slice_of("class", "luna", weak=True),),
        tuple(slice_of("class", label, weak=True) for label in CLASSES),
    )
    for slices, others in ((weak, ""), (both, "; 1 more class is weak, too")):
        (found,) = (one for one in remarks(report.model_copy(update={"slices": slices})) if "luna" in one.text)
        assert (found.good, found.text) == (
            False, f"Weak class: luna, 2 of 10 right, mostly taken for atlas (8){others}.",
        )  # fmt: skip


def test_a_class_of_few_pictures_that_chance_may_explain_is_no_bad_news() -> None:
    report = report_of([row != 1 for row in range(10)])
    report = report.model_copy(update={"slices": (slice_of("class", "luna", weak=False),)})
    (found,) = (remark for remark in remarks(report) if "luna" in remark.text)
    assert (found.good, found.text) == (True, "No class is left behind: the weakest is luna, 4 of 5 right.")
    unlucky = report_of([row not in {1, 3} for row in range(10)])
    (found,) = (remark for remark in remarks(unlucky) if "luna" in remark.text)
    assert (found.good, found.text) == (
        True,
        "No class is surely weaker than the rest. The lowest is luna, 3 of 5 right, mostly taken for atlas (2): so few "
        "pictures prove nothing.",
    )


def test_a_class_that_was_never_taught_is_told_once() -> None:
    report = report_of([row % 2 == 0 for row in range(20)]).model_copy(
        update={"unknown_classes": ("luna",), "slices": (slice_of("class", "luna", weak=True),)}
    )
    assert [remark.text for remark in remarks(report) if "luna" in remark.text] == [
        "The test pictures show classes that it was never taught: luna."
    ]


@pytest.mark.parametrize(
    ("hurt", "good", "text"),
    [
        (True, False, "Most hurt by colour cast (strong): from 90% to 70%."),
        (None, False, "Most hurt by colour cast (strong): from 90% to 70%."),
        (
            False,
            True,
            "Of what makes pictures worse, colour cast (strong) costs it most, from 90% to 70%; that may be chance "
            "with 20 pictures.",
        ),
    ],
    ids=["sure", "not tested", "chance"],
)
def test_worse_pictures_are_bad_news_only_where_they_surely_hurt(hurt: bool | None, good: bool, text: str) -> None:
    cast = RobustnessResult(
        corruption="colour_cast", strength=3, count=20, clean_accuracy=0.9, accuracy=0.7, p_value=0.01, hurt=hurt
    )
    slight = cast.model_copy(update={"strength": 1, "accuracy": 0.85, "hurt": True})
    found = remarks(report_of(rights(45, 50)).model_copy(update={"robustness": (slight, cast)}))
    assert (good, text) in [(remark.good, remark.text) for remark in found]


def test_what_surely_hurts_is_told_before_what_seems_to_hurt_more() -> None:
    noise = RobustnessResult(
        corruption="noise", strength=3, count=96, clean_accuracy=0.9, accuracy=0.75, p_value=0.0001, hurt=True
    )
    crop = noise.model_copy(update={"corruption": "crop", "accuracy": 0.74, "hurt": False})
    found = remarks(report_of(rights(45, 50)).model_copy(update={"robustness": (noise, crop)}))
    assert "Most hurt by noise (strong): from 90% to 75%." in [remark.text for remark in found if not remark.good]


def test_bad_news_comes_first() -> None:
    worst = RobustnessResult(
        corruption="colour_cast", strength=3, count=50, clean_accuracy=0.9, accuracy=0.4, hurt=True
    )
    weak = slice_of("brightness", "dark", weak=True)
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


@pytest.mark.parametrize("are_easy", [False, True])
def test_to_tell_drawings_from_photographs_is_no_praise(are_easy: bool) -> None:
    strangers = Strangers(what="80 drawings", count=80, withheld=79, auroc=0.99, are_easy=are_easy)
    rejection = judge_rejection(np.array([0.9, 0.8]), np.array([True, True]), np.array([False, False]), strangers)
    (said,) = (
        remark
        for remark in remarks(report_of(rights(45, 50)).model_copy(update={"rejection": rejection}))
        if "80 drawings" in remark.text
    )
    assert said.good == (not are_easy)
    assert said.text.endswith("name pictures of your own as evaluation.outside.") == are_easy


def test_classes_without_test_pictures_are_not_called_weak() -> None:
    metrics = compute_metrics(np.eye(3)[[0, 1]], np.array([0, 1]), ("a", "b", "c"), bootstrap_samples=0, seed=0)
    report = report_of(rights(2, 2)).model_copy(update={"metrics": metrics})
    said = {remark.text: remark.good for remark in remarks(report)}
    assert said["No class is left behind: all of every class are right."]
    assert said["Nobody knows how it does on c: no test picture shows it."] is False


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ({"epochs": 0.0}, "It is the head on frozen features (90% on validation), and nothing was fine-tuned."),
        ({"epochs": 6.0}, "It is the head on frozen features (90% on validation): no epoch of fine-tuning did better."),
        ({}, "It is the head on frozen features (90% on validation): no epoch of fine-tuning did better."),
    ],
)
def test_a_head_that_was_all_that_was_trained_beat_no_epoch(epochs: dict[str, float], said: str) -> None:
    validation = {"head_val_accuracy": 0.9, "val_accuracy": 0.9, "best_epoch": 0.0, **epochs}
    report = report_of(rights(95, 100)).model_copy(update={"validation": validation})
    assert said in [remark.text for remark in remarks(report)]
    assert ("nothing was fine-tuned" in kept(validation)) == ("nothing" in said)
