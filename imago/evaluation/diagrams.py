"""The drawings of the evaluation's page, as inline SVG."""

import html
import math
from collections.abc import Sequence

from imago.evaluation.calibration import ReliabilityBin
from imago.evaluation.metrics import Metrics
from imago.evaluation.rejection import Rejection
from imago.evaluation.remarks import percent, readable


def confusion_svg(metrics: Metrics) -> str:
    """Draw the confusion matrix as a square: rows shown, columns answered; each cell says itself on hovering."""
    count = len(metrics.classes)
    cells = []
    for shown, row in enumerate(metrics.confusion):
        total = sum(row)
        for answered, times in enumerate(row):
            if not times:
                continue
            title = html.escape(
                f"{readable(metrics.classes[shown])} → {readable(metrics.classes[answered])}: {times} of {total}"
            )
            kind = "right" if shown == answered else "wrong"
            opacity = 0.15 + 0.85 * times / total
            cells.append(
                f'<rect class="{kind}" x="{answered}" y="{shown}" width="1" height="1" opacity="{opacity:.2f}">'
                f"<title>{title}</title></rect>"
            )
    return (
        f'<svg class="matrix" viewBox="0 0 {count} {count}" role="img" aria-label="Confusion matrix">'
        f'<rect class="ground" width="{count}" height="{count}"/>{"".join(cells)}</svg>'
    )


def reliability_svg(bins: Sequence[ReliabilityBin]) -> str:
    """Draw accuracy over confidence: on the diagonal, the model is as often right as it claims."""
    most = max((entry.count for entry in bins), default=1)
    columns = []
    for entry in bins:
        left, width, height = 60 + 240 * entry.low, 240 * (entry.high - entry.low) - 2, 240 * entry.accuracy
        title = f"claims {percent(entry.confidence)}, right {percent(entry.accuracy)}, {entry.count} pictures"
        columns.append(
            f'<rect class="column" x="{left + 1:.1f}" y="{250 - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" opacity="{0.35 + 0.65 * entry.count / most:.2f}"><title>{title}</title></rect>'
        )
    ticks = "".join(
        f'<text x="54" y="{254 - 240 * tick / 100:.0f}" text-anchor="end">{tick}%</text>'
        f'<text x="{60 + 240 * tick / 100:.0f}" y="266" text-anchor="middle">{tick}%</text>'
        for tick in (0, 50, 100)
    )
    return (
        '<svg class="reliability" viewBox="0 0 320 290" role="img" aria-label="Reliability diagram">'
        f'<rect class="ground" x="60" y="10" width="240" height="240"/>{"".join(columns)}'
        f'<line class="ideal" x1="60" y1="250" x2="300" y2="10"/>{ticks}'
        '<text x="180" y="284" text-anchor="middle">what it claims</text>'
        '<text transform="translate(14 130) rotate(-90)" text-anchor="middle">what comes true</text></svg>'
    )


def risk_svg(rejection: Rejection) -> str:
    """Draw the share of wrong answers over the share of pictures that are answered; a dot marks the threshold."""
    top = max(0.05, math.ceil(20 * max(point.error for point in rejection.curve)) / 20)

    def place(coverage: float, error: float) -> tuple[float, float]:
        return 60 + 240 * coverage, 250 - 240 * error / top

    line = " ".join("{:.1f},{:.1f}".format(*place(point.coverage, point.error)) for point in rejection.curve)
    dot = ""
    if rejection.error is not None:
        x, y = place(rejection.coverage, rejection.error)
        title = f"answers {percent(rejection.coverage)}, {percent(rejection.error)} of them wrong"
        dot = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{title}</title></circle>'
    ticks = "".join(
        f'<text x="54" y="{254 - 2.4 * tick:.0f}" text-anchor="end">{tick * top:.3g}%</text>'
        f'<text x="{60 + 2.4 * tick:.0f}" y="266" text-anchor="middle">{tick}%</text>'
        for tick in (0, 50, 100)
    )
    return (
        '<svg class="reliability" viewBox="0 0 320 290" role="img" aria-label="Risk-coverage curve">'
        '<rect class="ground" x="60" y="10" width="240" height="240"/>'
        f'<polyline class="curve" points="{line}"/>{dot}{ticks}'
        '<text x="180" y="284" text-anchor="middle">how many pictures are answered</text>'
        '<text transform="translate(14 130) rotate(-90)" text-anchor="middle">how many answers are wrong</text></svg>'
    )
