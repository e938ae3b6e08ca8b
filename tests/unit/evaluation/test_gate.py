import numpy as np
import pytest

from imago.config import GateConfig
from imago.evaluation.gate import already_champion, decide
from imago.evaluation.metrics import Interval, compute_metrics
from imago.evaluation.report import EvaluationReport
from tests.unit.evaluation.reports import report_of, rights

GATE = GateConfig()


def test_the_first_is_promoted_when_it_is_good_enough() -> None:
    decision = decide(report_of(rights(45, 50)), None, GATE)
    assert decision.promoted
    assert decision.comparison is None
    assert "90.0% of 50 test pictures" in decision.reason


def test_the_first_is_not_promoted_below_the_floor() -> None:
    decision = decide(report_of(rights(20, 50)), None, GATE)
    assert not decision.promoted
    assert "40.0%" in decision.reason
    assert "gate.min_accuracy" in decision.reason


def test_what_always_names_the_commonest_class_is_not_promoted_unless_anything_is() -> None:
    constant = report_of([row % 2 == 0 for row in range(52)], order=[row for row in range(52) if row % 4 != 1])
    assert constant.metrics.accuracy == constant.metrics.chance == pytest.approx(2 / 3)
    decision = decide(constant, None, GATE)
    assert not decision.promoted
    assert decision.reason.startswith("No better than always naming the commonest class (66.7%): the challenger names")
    assert decide(constant, None, GateConfig(min_accuracy=0)).promoted
    assert decide(report_of([True] * 8, order=[0, 2, 4, 6]), None, GATE).promoted  # only one class is shown


def test_what_is_in_production_already_says_which_limit_of_now_it_misses() -> None:
    report = report_of(rights(45, 50))
    assert already_champion(report, "3", GATE).reason.endswith("(95%: 78.6%–95.7%).")
    stricter = already_champion(report, "3", GateConfig(min_accuracy=0.95))
    assert stricter.promoted
    assert "By the limits of this run it would not have been promoted. Not good enough:" in stricter.reason


def test_confidence_that_cannot_be_believed_is_not_promoted() -> None:
    decision = decide(report_of(rights(30, 50), confidence=0.999), None, GATE)
    assert not decision.promoted
    assert "off by 0.399 on average, at most 0.250 allowed (gate.max_calibration_error)" in decision.reason


def test_how_much_of_the_calibration_error_may_be_chance_is_said() -> None:
    sure = report_of(rights(30, 50), confidence=0.999)
    around = {"expected_calibration_error_interval": Interval(low=0.26, high=0.53)}
    report = sure.model_copy(update={"metrics": sure.metrics.model_copy(update=around)})
    assert "off by 0.399 on average (the true error: 0.260–0.530), at most" in decide(report, None, GATE).reason


def test_a_better_challenger_replaces_the_champion() -> None:
    better, champion = report_of(rights(47, 50)), report_of(rights(35, 50))
    decision = decide(better, champion, GATE, champion_version="3", challenger_version="5")
    assert decision.promoted
    assert (decision.champion_version, decision.challenger_version) == ("3", "5")
    assert decision.comparison is not None
    assert (decision.comparison.only_challenger_right, decision.comparison.only_champion_right) == (12, 0)
    assert decision.comparison.p_value == pytest.approx(2 * 0.5**12)
    assert "94.0%" in decision.reason
    assert "70.0%" in decision.reason
    assert "chance" not in decision.reason


def test_a_slightly_better_challenger_is_promoted_and_the_doubt_said() -> None:
    decision = decide(report_of(rights(41, 50)), report_of(rights(40, 50)), GATE)
    assert decision.promoted
    assert "may be chance" in decision.reason


def test_where_surely_better_is_asked_for_a_lead_that_may_be_chance_does_not_do() -> None:
    strict = GateConfig(surely_better=True)
    doubtful = decide(report_of(rights(41, 50)), report_of(rights(40, 50)), strict)
    assert not doubtful.promoted
    assert doubtful.reason.startswith("Not surely better than the champion, as gate.surely_better asks: ")
    assert "(p = 1)" in doubtful.reason
    assert decide(report_of(rights(47, 50)), report_of(rights(35, 50)), strict).promoted
    assert not decide(report_of(rights(35, 50)), report_of(rights(47, 50)), strict).promoted
    assert decide(report_of(rights(35, 50)), None, strict).promoted


def test_a_worse_challenger_is_kept_out() -> None:
    decision = decide(report_of(rights(39, 50)), report_of(rights(40, 50)), GATE)
    assert not decision.promoted
    assert decision.reason.startswith("Worse than the champion")


def test_the_same_model_again_is_no_better() -> None:
    decision = decide(report_of(rights(45, 50)), report_of(rights(45, 50)), GATE)
    assert not decision.promoted
    assert decision.reason.startswith("No better than the champion")


def test_as_often_right_with_a_lower_log_loss_is_better() -> None:
    champion = report_of(rights(45, 50), confidence=0.7)
    assert decide(report_of(rights(45, 50), confidence=0.9), champion, GATE).promoted
    assert not decide(champion, report_of(rights(45, 50), confidence=0.9), GATE).promoted


def test_a_drop_within_what_is_allowed_passes_unless_it_is_surely_worse() -> None:
    lenient = GateConfig(max_accuracy_drop=0.2)
    assert decide(report_of(rights(44, 50)), report_of(rights(46, 50)), lenient).promoted
    surely = decide(report_of(rights(38, 50)), report_of(rights(47, 50)), lenient)
    assert not surely.promoted
    assert surely.reason.startswith("Surely worse")


def test_other_test_pictures_cannot_be_compared_and_nothing_is_promoted() -> None:
    decision = decide(report_of(rights(50, 50), confidence=0.99), report_of(rights(30, 50), test="other"), GATE)
    assert not decision.promoted
    assert decision.comparison is None
    assert decision.reason.startswith("Not comparable")


def test_a_challenger_that_lacks_a_class_is_kept_out_or_judged_alone_as_configured() -> None:
    champion = report_of(rights(30, 50), known=("atlas", "luna", "io"))
    kept_out = decide(report_of(rights(45, 50)), champion, GATE.model_copy(update={"incomparable": "refuse"}))
    alone = decide(report_of(rights(45, 50)), champion, GATE.model_copy(update={"incomparable": "floor"}))
    assert not kept_out.promoted
    assert "does not know io" in kept_out.reason
    assert alone.promoted
    assert alone.comparison is None
    assert "by itself alone" in alone.reason


def test_a_challenger_that_knows_more_classes_can_be_compared() -> None:
    champion = report_of(rights(30, 50), known=("atlas",))
    assert decide(report_of(rights(45, 50)), champion, GATE).promoted


def test_a_challenger_of_more_classes_that_is_surely_worse_on_the_others_is_kept_out() -> None:
    """Atlas is at even rows, luna, which the champion was never taught, at odd ones."""
    champion = report_of([row % 2 == 0 for row in range(100)], known=("atlas",))
    right = [row % 2 == 1 or row % 10 < 6 for row in range(100)]
    decision = decide(report_of(right), champion, GATE)
    assert not decision.promoted
    assert decision.reason.startswith("Surely worse than the champion on the classes that both know")
    assert "50 of the pictures show classes that the champion was never taught" in decision.reason
    assert "of the other 50 the challenger names 60.0% right, the champion 100.0% (p = 1.91e-06)" in decision.reason
    nearly = decide(report_of([row != 0 for row in range(100)]), champion, GATE)
    assert nearly.promoted
    assert "of the other 50 the challenger names 98.0% right, the champion 100.0% (p = 1)" in nearly.reason


def test_pictures_that_the_champion_learned_from_are_not_compared() -> None:
    """It is right on the forty that it learned from, and on half of the others."""
    learned = [f"{row:064x}" for row in range(40)]
    champion = report_of([row < 50 for row in range(60)])
    challenger = report_of([row % 5 > 0 for row in range(60)])
    assert decide(challenger, champion, GATE).reason.startswith("Worse than the champion")
    decision = decide(challenger, champion, GATE, learned=learned)
    assert decision.promoted
    assert decision.reason.startswith(
        "Better than the champion: the challenger names 80.0% of 20 test pictures right (95%: 58.4%–91.9%), the "
        "champion 50.0%; 8 pictures are right only with the challenger, 2 only with the champion (p = 0.109); 40 more "
        "are left out, for the champion learned from them"
    )


def test_a_tie_on_the_pictures_that_are_compared_is_decided_by_their_log_loss_alone() -> None:
    learned = [f"{row:064x}" for row in range(40)]
    champion = report_of(rights(50, 60), confidence=0.7)
    decision = decide(report_of(rights(50, 60), confidence=0.9), champion, GATE, learned=learned)
    assert not decision.promoted
    assert "log loss 1.2040 against 0.7803" in decision.reason


def test_a_champion_that_learned_from_every_test_picture_cannot_be_compared() -> None:
    learned = [f"{row:064x}" for row in range(50)]
    decision = decide(report_of(rights(45, 50)), report_of(rights(50, 50)), GATE, learned=learned)
    assert decision.promoted
    assert decision.comparison is None
    assert decision.reason.startswith(
        "Not comparable: the champion learned from all 50 test pictures. Judged by itself"
    )


def by_class(atlas: tuple[int, int], luna: tuple[int, int]) -> EvaluationReport:
    """Make a report with so many right, of so many, of each class."""
    of = [[True] * right + [False] * (total - right) for right, total in (atlas, luna)]
    right = {2 * turn + index: answer for index, answers in enumerate(of) for turn, answer in enumerate(answers)}
    return report_of([right.get(row, True) for row in range(max(right) + 1)], order=sorted(right))


def test_a_class_left_behind_keeps_the_model_out_and_is_named() -> None:
    limited = GateConfig(min_class_recall=0.5)
    decision = decide(by_class((30, 30), (1, 10)), None, limited)
    assert not decision.promoted
    assert "of luna it names 1 of 10 test pictures right (10.0%), at least 50.0% asked" in decision.reason
    assert "(gate.min_class_recall), and chance does not explain it (p = 0.0107, 2 classes tested)" in decision.reason
    assert decide(by_class((30, 30), (1, 10)), None, GATE).promoted
    assert decide(by_class((30, 30), (9, 10)), None, limited).promoted


def test_a_class_of_two_pictures_does_not_decide_by_chance() -> None:
    limited = GateConfig(min_accuracy=0, min_class_recall=0.5)
    assert decide(by_class((30, 30), (0, 2)), None, limited).promoted
    assert decide(by_class((30, 30), (0, 5)), None, limited).promoted
    assert not decide(by_class((30, 30), (0, 6)), None, limited).promoted
    alone = GateConfig(min_accuracy=0, max_calibration_error=1, min_class_recall=0.5)
    assert decide(report_of([False] * 8, order=[1, 3, 5, 7]), None, alone).promoted
    assert not decide(report_of([False] * 10, order=[1, 3, 5, 7, 9]), None, alone).promoted


def test_of_models_whose_hundred_classes_are_just_as_good_as_asked_few_are_kept_out() -> None:
    limited = GateConfig(min_accuracy=0, max_calibration_error=1, min_class_recall=0.7)
    labels, names = np.repeat(np.arange(100), 20), tuple(f"species {index}" for index in range(100))
    kept_out = 0
    for seed in range(20):
        right = np.random.default_rng(seed).random(2000) < 0.7
        answers = np.where(right, labels, (labels + 1) % 100)
        metrics = compute_metrics(np.eye(100)[answers], labels, names, bootstrap_samples=0, seed=0)
        kept_out += not decide(report_of([True]).model_copy(update={"metrics": metrics}), None, limited).promoted
    assert kept_out <= 2


def test_the_worst_of_the_classes_is_named_and_the_others_counted() -> None:
    decision = decide(by_class((12, 20), (10, 20)), None, GateConfig(min_class_recall=0.9, max_calibration_error=1.0))
    assert not decision.promoted
    assert "of luna it names 10 of 20" in decision.reason
    assert "1 more of the classes" in decision.reason


def test_too_slow_and_too_large_are_kept_out_with_the_figures() -> None:
    report = report_of(rights(50, 50), confidence=0.99).model_copy(
        update={"latency_ms": 12.5, "model_bytes": 2_000_001}
    )
    slow = decide(report, None, GateConfig(max_latency_ms=12.4))
    large = decide(report, None, GateConfig(max_model_bytes=2_000_000))
    assert (slow.promoted, large.promoted) == (False, False)
    assert slow.reason == "Too slow: 12.5 ms a picture in the middle, at most 12.4 ms allowed (gate.max_latency_ms)."
    assert large.reason == "Too large: 2,000,001 bytes of model, at most 2,000,000 allowed (gate.max_model_bytes)."
    assert decide(report, None, GateConfig(max_latency_ms=12.5, max_model_bytes=2_000_001)).promoted


def test_a_limit_keeps_out_what_is_better_than_the_champion() -> None:
    slower = report_of(rights(47, 50)).model_copy(update={"latency_ms": 30.0})
    decision = decide(slower, report_of(rights(35, 50)), GateConfig(max_latency_ms=20))
    assert not decision.promoted
    assert "gate.max_latency_ms" in decision.reason


def test_a_champion_of_other_classes_altogether_is_said_to_be_incomparable() -> None:
    champion = report_of(rights(30, 50), known=("comet", "io", "polyphemus", "promethea", "sphinx"))
    decision = decide(report_of(rights(45, 50)), champion, GATE)
    assert decision.promoted
    assert decision.comparison is None
    assert decision.reason.startswith(
        "Not comparable: the challenger does not know comet, io, polyphemus and 2 more, which the champion does."
    )
