"""What a verdict on drift leads to."""

from pydantic import BaseModel, ConfigDict

from imago.monitoring.drift import DriftReport


class Decision(BaseModel):
    """Whether the model is to be trained again, and why, as a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retrain: bool
    sentence: str


def decide(report: DriftReport) -> Decision:
    """Return what to do: drift calls for training again; the gate then decides whether the result is any better."""
    if report.verdict == "drifted":
        return Decision(retrain=True, sentence=f"Train again, on data that holds the new pictures. {report.sentence}")
    if report.verdict == "stable":
        return Decision(retrain=False, sentence=f"Keep the model. {report.sentence}")
    return Decision(retrain=False, sentence=f"Wait for more predictions. {report.sentence}")
