"""The evaluation as one self-contained page: the verdict first, then where the model goes wrong."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pyarrow as pa
from PIL import Image

from imago.data.dataset import ImageDataset
from imago.data.transforms import MAX_PIXELS, RGB, decode
from imago.evaluation.calibration import ReliabilityBin, reliability
from imago.evaluation.diagrams import confusion_svg, reliability_svg, risk_svg
from imago.evaluation.explain import fit_within, occlusion_map, overlay
from imago.evaluation.metrics import Interval, Metrics
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
)
from imago.evaluation.report import Findings
from imago.evaluation.robustness import STRENGTHS
from imago.serving.runtime import Runtime

_MISTAKES, _EXPLAINED = 24, 4
_WHOLE_MATRIX = 16
_FIRST_CLASSES = 20
_THUMBNAIL = 176


@dataclass(frozen=True)
class Mistake:
    """A wrong answer with its picture, and where the model looked."""

    id: str
    label: str
    predicted: str
    probability: float
    thumbnail: str  # data URI
    heat: str | None  # data URI


@dataclass(frozen=True)
class Figure:
    """A number of the metrics as it is written: with its interval, and what it was before the temperature."""

    name: str
    value: str
    interval: str
    before: str


def render(
    findings: Findings, predictions: pa.Table, test: ImageDataset, runtime: Runtime, *, max_pixels: int = MAX_PIXELS
) -> str:
    """Return the page. The test pictures, in the order of the predictions, are for the thumbnails of mistakes."""
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
        metrics=findings.metrics,
        remarks=remarks(findings),
        mistakes=worst_mistakes(predictions, test, runtime, max_pixels=max_pixels),
        wrong=predictions.num_rows - sum(predictions.column("correct").to_pylist()),
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


def worst_mistakes(
    predictions: pa.Table, test: ImageDataset, runtime: Runtime, *, max_pixels: int = MAX_PIXELS
) -> list[Mistake]:
    """Return the wrong answers that the model was surest of, the first few with a map of where it looked."""
    columns = predictions.select(["id", "label", "predicted", "probability", "correct"]).to_pydict()
    wrong = [row for row, correct in enumerate(columns["correct"]) if not correct]
    wrong.sort(key=lambda row: (-columns["probability"][row], columns["id"][row]))
    mistakes = []
    for rank, row in enumerate(wrong[:_MISTAKES]):
        picture = decode(test.image(row), max_pixels=max_pixels)
        heat = None
        if rank < _EXPLAINED:
            seen = fit_within(picture, 4 * _THUMBNAIL)
            heat = _data_uri(decode(overlay(seen, occlusion_map(runtime, seen))))
        mistakes.append(
            Mistake(
                id=columns["id"][row],
                label=columns["label"][row],
                predicted=columns["predicted"][row],
                probability=columns["probability"][row],
                thumbnail=_data_uri(picture),
                heat=heat,
            )
        )
    return mistakes


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


def _data_uri(picture: RGB) -> str:
    sink = io.BytesIO()
    Image.fromarray(fit_within(picture, _THUMBNAIL)).save(sink, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
