import pytest

from imago.config import GateConfig
from imago.evaluation.gate import compare, decide
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


def test_confidence_that_cannot_be_believed_is_not_promoted() -> None:
    decision = decide(report_of(rights(30, 50), confidence=0.999), None, GATE)
    assert not decision.promoted
    assert "gate.max_calibration_error" in decision.reason


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


def test_pictures_are_paired_by_their_bytes_not_by_their_order() -> None:
    right = [True, True, False, True, False, False]
    comparison = compare(report_of(right), report_of(right, order=[5, 3, 1, 0, 2, 4]))
    assert (comparison.only_challenger_right, comparison.only_champion_right, comparison.p_value) == (0, 0, 1.0)


def test_reports_on_other_pictures_are_never_paired() -> None:
    with pytest.raises(ValueError, match="same pictures"):
        compare(report_of([True] * 4), report_of([True] * 5))
