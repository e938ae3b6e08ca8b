"""The evaluation as one self-contained page: the verdict first, then where the model goes wrong."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pyarrow as pa

from imago.data.dataset import ImageDataset
from imago.evaluation.calibration import ReliabilityBin, reliability
from imago.evaluation.diagrams import confusion_svg, reliability_svg, risk_svg
from imago.evaluation.gate import GateDecision
from imago.evaluation.metrics import Interval, Metrics
from imago.evaluation.mistakes import confused_pairs, doubtful_labels, worst_mistakes
from imago.evaluation.remarks import (
    around,
    class_rows,
    corruption,
    degree,
    interval,
    magnitude,
    percent,
    readable,
    remarks,
    weak_classes,
)
from imago.evaluation.report import Findings
from imago.evaluation.robustness import STRENGTHS
from imago.serving.runtime import Runtime

_PLACE_OF_THE_VERDICT = "<!-- the verdict of the gate -->"
_WHOLE_MATRIX = 16
_FIRST_CLASSES = 20


@dataclass(frozen=True)
class Figure:
    """A number of the metrics as it is written: with its interval, and what it was before the temperature."""

    name: str
    value: str
    interval: str
    before: str


def with_verdict(page: str, decision: GateDecision) -> str:
    """Return the page with what the gate said above its figures, which are known before it is asked."""
    kind, word = ("good", "Promoted") if decision.promoted else ("bad", "Not promoted")
    verdict = f'<p class="verdict {kind}"><b>{word}.</b> {html.escape(decision.reason)}</p>'
    return page.replace(_PLACE_OF_THE_VERDICT, verdict, 1)


def render(findings: Findings, predictions: pa.Table, dataset: ImageDataset, runtime: Runtime) -> str:
    """Return the page. The predictions are of the dataset's test pictures, in their order."""
    test, train = dataset.split("test"), dataset.split("train")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        percent=percent,
        readable=readable,
        corruption=corruption,
        degree=degree,
        interval=interval,
        around=around,
        magnitude=magnitude,
    )
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    rows = class_rows(findings.metrics)
    return template.render(
        findings=findings,
        place_of_the_verdict=_PLACE_OF_THE_VERDICT,
        metrics=findings.metrics,
        remarks=remarks(findings),
        gallery=worst_mistakes(predictions, test, runtime),
        confused_pairs=confused_pairs(findings.metrics, predictions, test),
        doubtful=doubtful_labels(findings.suspects or (), train),
        knows_some=not set(findings.classes).isdisjoint(test.labels),
        taught=len(train),
        wrong=predictions.num_rows - sum(predictions.column("correct").to_pylist()),
        weak_classes=weak_classes(findings),
        first_rows=rows[:_FIRST_CLASSES],
        other_rows=rows[_FIRST_CLASSES:],
        confusions=findings.metrics.confusions(10),
        whole_matrix=len(findings.metrics.classes) <= _WHOLE_MATRIX,
        matrix=confusion_svg(findings.metrics),
        diagram=reliability_svg(_bins(findings, predictions)),
        risk=risk_svg(findings.rejection) if findings.rejection else "",
        figures=every_figure(findings.metrics),
        strengths=STRENGTHS,
        corruptions=_corruptions(findings),
    )


def every_figure(metrics: Metrics) -> list[Figure]:
    """Return the metrics that are one number, each with its 95% interval."""
    rows: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("accuracy", "accuracy", percent),
        ("balanced_accuracy", "right per class, on average", percent),
        ("macro_f1", "macro F1", percent),
        ("top5", "among the five likeliest", percent),
        ("mean_confidence", "mean confidence", percent),
        ("expected_calibration_error", "calibration error", "{:.1%}".format),
        ("log_loss", "log loss", "{:.3f}".format),
    )
    figures = []
    for key, name, said in rows:
        if key == "top5" and len(metrics.classes) <= 5:  # which all are
            continue
        found: Interval | None = getattr(metrics, f"{key}_interval")
        before: float | None = getattr(metrics, f"uncalibrated_{key}", None)
        span: Interval | None = getattr(metrics, f"uncalibrated_{key}_interval", None)
        around = f" ({said(span.low)}–{said(span.high)})" if span else ""
        figures.append(
            Figure(
                name=name,
                value=said(getattr(metrics, key)),
                interval=f"{said(found.low)}–{said(found.high)}" if found else "",
                before=f"{said(before)}{around}" if before is not None else "",
            )
        )
    return figures


def _bins(findings: Findings, predictions: pa.Table) -> list[ReliabilityBin]:
    column = {label: index for index, label in enumerate(findings.metrics.classes)}
    truth = np.array([column[label] for label in predictions.column("label").to_pylist()], dtype=np.int64)
    return reliability(np.array(predictions.column("probabilities").to_pylist()), truth, bins=10)


def _corruptions(findings: Findings) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for result in findings.robustness:
        rows.setdefault(result.corruption, []).append(result.accuracy)
    return rows
