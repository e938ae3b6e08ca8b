"""What of an endpoint does not work as it should, although predictions are answered."""

from imago.monitoring.prediction_writer import PredictionWriter
from imago.serving.logs import Log
from imago.serving.metrics import Metrics
from imago.serving.rate_limit import RateLimit


def degraded(
    writer: PredictionWriter | None,
    shadow_writer: PredictionWriter | None,
    log: Log | None,
    rate: RateLimit,
    metrics: Metrics,
) -> list[dict[str, str]]:
    """Return each `part` that is degraded in this process, and a `message` for whoever runs it."""
    parts: dict[str, str] = {}
    if writer is not None and writer.failing:
        parts["predictions"] = f"Predictions are answered, and cannot be kept: {_held(writer)}."
    if shadow_writer is not None and shadow_writer.failing:
        parts["shadow"] = f"What a shadow answers cannot be kept for the comparison: {_held(shadow_writer)}."
    if log is not None and log.failing:
        parts["log"] = f"The log cannot be written: {log.lost:,} lines are lost."
    if not rate.shared:
        parts["rate_limit"] = "Each worker counts for itself: together they answer more than the limit."
    if not metrics.shared:
        parts["metrics"] = "/metrics tells of one worker only, whichever is asked."
    return [{"part": part, "message": message} for part, message in parts.items()]


def _held(writer: PredictionWriter) -> str:
    return f"{writer.waiting:,} wait in memory, {writer.lost:,} are lost"
