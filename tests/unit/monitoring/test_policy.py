"""What each verdict leads to."""

import pytest

from imago.monitoring.drift import DriftReport, Verdict, Window
from imago.monitoring.policy import decide


def report(verdict: Verdict) -> DriftReport:
    return DriftReport(
        verdict=verdict,
        sentence="None of 9 tests found drift in 200 predictions.",
        window=Window(since=None, until=None, count=200),
        tests=(),
        accuracy=None,
        feedback=0,
        estimated_accuracy=0.9,
        evidently={},
        page="",
    )


@pytest.mark.parametrize(
    ("verdict", "retrain", "start"),
    [("drifted", True, "Train again"), ("stable", False, "Keep the model"), ("not_enough_data", False, "Wait")],
)
def test_only_drift_calls_for_training_again(verdict: Verdict, retrain: bool, start: str) -> None:
    decision = decide(report(verdict))
    assert decision.retrain is retrain
    assert decision.sentence.startswith(start)
    assert decision.sentence.endswith("in 200 predictions.")
