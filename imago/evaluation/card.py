"""The model card with what the test pictures said: a package is written before that is known, and never changed."""

from imago.evaluation.page import every_figure
from imago.evaluation.remarks import class_rows, percent, readable, remarks
from imago.evaluation.report import Findings
from imago.serving.answers import Tested
from imago.serving.card import plain


def accuracy_on_tests(findings: Findings) -> Tested:
    """Return what the endpoint says of an evaluation."""
    metrics = findings.metrics
    span = metrics.accuracy_interval
    return Tested(accuracy=metrics.accuracy, low=span.low, high=span.high, pictures=metrics.pictures)


def evaluated_card(card: str, findings: Findings) -> str:
    """Return a package's card with the figures of its evaluation, and where it is weak."""
    metrics, worst = findings.metrics, class_rows(findings.metrics)[0]
    rows = [(figure.name, figure.value, figure.interval or "–") for figure in every_figure(metrics)]
    entry = worst.metrics
    span = entry.recall_interval
    rows.append(
        (
            f"worst class: {readable(entry.label)}, {entry.support} pictures",
            percent(entry.recall),
            f"{percent(span.low)}–{percent(span.high)}" if span else "–",
        )
    )
    weak = [remark.text for remark in remarks(findings) if not remark.good]
    return "\n".join(
        [
            card.rstrip(),
            "",
            "## Test",
            "",
            f"{metrics.pictures} pictures that it had not seen, fingerprint `{findings.test_fingerprint}`.",
            "",
            "| figure | | 95% interval |",
            "|---|---:|---|",
            *(f"| {plain(name)} | {value} | {interval} |" for name, value, interval in rows),
            "",
            "## Where it is weak",
            "",
            *([f"- {plain(text)}" for text in weak] or ["Nothing stood out on the test pictures."]),
            "",
        ]
    )
