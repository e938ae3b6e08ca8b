"""Evaluation reports made up from a list of rights and wrongs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from imago.evaluation.metrics import Finding, compute_metrics
from imago.evaluation.report import PREDICTIONS, EvaluationReport

CLASSES = ("atlas", "luna")


def report_of(
    right: Sequence[bool],
    *,
    confidence: float = 0.9,
    test: str = "the same",
    known: tuple[str, ...] = CLASSES,
    order: Sequence[int] | None = None,
) -> EvaluationReport:
    """Make the report of a model that is right on these pictures; picture i shows class i % 2, its sha256 is its name.

    `order` lists the pictures in another order, as another source of the same pictures would.
    """
    rows = list(order) if order is not None else list(range(len(right)))
    truth = np.array([row % 2 for row in rows])
    answers = np.array([row % 2 if right[row] else 1 - row % 2 for row in rows])
    probabilities = np.full((len(rows), 2), 1 - confidence)
    probabilities[np.arange(len(rows)), answers] = confidence
    metrics = compute_metrics(probabilities, truth, CLASSES, bootstrap_samples=0, seed=0)
    columns: dict[str, Any] = {
        "id": [f"{row}.jpg" for row in rows],
        "sha256": [f"{row:064x}" for row in rows],
        "label": [CLASSES[index] for index in truth],
        "predicted": [CLASSES[index] for index in answers],
        "probability": [confidence] * len(rows),
        "correct": [right[row] for row in rows],
        "rejected": [False] * len(rows),
        "probabilities": list(probabilities.astype(np.float32)),
        **{name: [0.5] * len(rows) for name in ("brightness", "contrast", "sharpness")},
        **{name: [64] * len(rows) for name in ("width", "height")},
    }
    return EvaluationReport(
        model="moths",
        architecture="made_up",
        package_fingerprint="0" * 16,
        classes=known,
        unknown_classes=(),
        dataset_fingerprint="1" * 16,
        test_fingerprint=test,
        temperature=1.0,
        reject_threshold=0.0,
        metrics=metrics,
        rejected=0,
        slices=(),
        robustness=(),
        latency_ms=1.0,
        latency_ms_p95=2.0,
        model_bytes=1000,
        predictions=pa.table(columns, schema=PREDICTIONS),
        html="<p>made up</p>",
    )


def rights(right: int, total: int) -> list[bool]:
    """Return so many rights, then wrongs."""
    return [True] * right + [False] * (total - right)


def as_written_before(value: Any) -> Any:
    """Return the JSON object of a finding as an earlier version wrote it, which knew the required fields alone."""
    if isinstance(value, Finding):
        fields = type(value).model_fields
        return {name: as_written_before(getattr(value, name)) for name in fields if fields[name].is_required()}
    return [as_written_before(item) for item in value] if isinstance(value, tuple) else value
