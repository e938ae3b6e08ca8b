"""Whether the pictures that a model is asked about are still those it was validated on."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict

from imago.config import MonitoringConfig
from imago.data.features import FEATURES
from imago.errors import ImagoError
from imago.monitoring.prediction_store import PredictionStore
from imago.monitoring.two_sample import TwoSample, domain_classifier, kolmogorov_smirnov, total_variation
from imago.serving.package import ModelPackage

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (*FEATURES, "probability")
MOST_PREDICTIONS = 20_000
"""Of a window that are looked at; 4 kB each."""
MIN_REFERENCE = 20
"""With fewer validation pictures than this, no test could tell a change from chance."""

Verdict = Literal["stable", "drifted", "not_enough_data"]


class Window(BaseModel):
    """The predictions looked at: the first and the last, as ISO times, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: str | None
    until: str | None
    count: int


class DriftTest(BaseModel):
    """One test; it has found drift where `statistic` is greater than `threshold`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    statistic: float
    threshold: float
    p_value: float
    effect_size: float  # from 0, nothing has changed, to 1, nothing is as it was
    drifted: bool
    sentence: str


class DriftReport(BaseModel):
    """The verdict on a window of predictions, the tests behind it, and a page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    sentence: str
    window: Window
    tests: tuple[DriftTest, ...]
    accuracy: float | None  # of the predictions that somebody gave feedback on
    feedback: int
    estimated_accuracy: float | None  # the average confidence, right as far as the model is calibrated
    evidently: dict[str, Any]
    page: str  # HTML, self-contained

    def to_json(self) -> dict[str, Any]:
        """Return what `--pipeline monitoring --json` adds."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "window": {"from": self.window.since, "to": self.window.until, "count": self.window.count},
            "tests": [test.model_dump() for test in self.tests],
            "accuracy": self.accuracy,
            "feedback": self.feedback,
            "estimated_accuracy": self.estimated_accuracy,
        }


def detect(
    package: ModelPackage,
    store: Path,
    config: MonitoringConfig,
    *,
    version: str | None = None,
    now: datetime | None = None,
) -> DriftReport:
    """Compare a model's predictions of the last `window_hours` with its reference table.

    Looks at one version's predictions only, by default the one that answered last, and of very many at a sample.
    """
    until = now or datetime.now(UTC)
    since = until - timedelta(hours=config.window_hours)
    predictions, model = PredictionStore(store), package.spec.name
    version = version or predictions.last_version(model, since, until)
    current = predictions.window(since, until, model=model, version=version, most=MOST_PREDICTIONS).to_pandas()
    count = predictions.count(since, until, model=model, version=version)
    reference = pq.read_table(package.reference).to_pandas()
    return compare(reference, current, config, count=count)


def compare(
    reference: "pd.DataFrame", current: "pd.DataFrame", config: MonitoringConfig, *, count: int | None = None
) -> DriftReport:
    """Compare predictions made in service with those on the validation pictures; columns as in the prediction store.

    Each number is tested with Kolmogorov-Smirnov, the label by its total variation, the embedding with a classifier
    between the two samples. The significance is shared out over all tests (Bonferroni), and an effect must have a
    minimum size, so any one test that finds drift decides. `count` is how many predictions `current` is a sample of,
    where it is one. Raises ImagoError where columns lack or do not match.
    """
    for name, frame in (("reference", reference), ("predictions", current)):
        missing = [column for column in (*NUMBERS, "label") if column not in frame.columns]
        if missing:
            raise ImagoError(f"Drift cannot be measured: the {name} lack the columns {', '.join(missing)}.")
    window = _window(current, count)
    needed = config.min_predictions
    if window.count < needed:
        why = f"{window.count} predictions in the window; at least {needed} are needed to tell drift from chance."
        return _report("not_enough_data", why, window, [], current, config)
    if len(reference) < MIN_REFERENCE:
        why = (
            f"The model was validated on only {len(reference)} pictures; at least {MIN_REFERENCE} are needed to tell "
            "drift from chance."
        )
        return _report("not_enough_data", why, window, [], current, config)

    tests = drift_tests(reference, current, config)
    found = [test for test in tests if test.drifted]
    if found:
        named = "; ".join(test.sentence for test in sorted(found, key=lambda test: -test.effect_size))
        why = f"{len(found)} of {len(tests)} tests found drift in {window.count} predictions: {named}."
        return _report("drifted", why, window, tests, current, config, reference)
    why = f"None of {len(tests)} tests found drift in {window.count} predictions."
    return _report("stable", why, window, tests, current, config, reference)


def estimate_accuracy(current: "pd.DataFrame") -> float | None:
    """Return the average confidence: of a calibrated model, the accuracy to expect without any true label.

    Guo et al. (2017), arXiv:1706.04599, for the calibration; Garg et al. (2022), arXiv:2201.04234, for how far it
    carries when the pictures change: it tends to be too hopeful.
    """
    return float(current["probability"].mean()) if len(current) else None


def accuracy_by_feedback(current: "pd.DataFrame") -> tuple[float | None, int]:
    """Return the accuracy over the predictions with feedback, and how many those are."""
    if "feedback" not in current.columns:
        return None, 0
    known = current[current["feedback"].notna()]
    if known.empty:
        return None, 0
    return float((known["feedback"] == known["label"]).mean()), len(known)


def drift_tests(reference: "pd.DataFrame", current: "pd.DataFrame", config: MonitoringConfig) -> list[DriftTest]:
    """Return the outcome of every test for which both frames hold values."""
    numbers = [name for name in NUMBERS if reference[name].notna().any() and current[name].notna().any()]
    vectors = _embeddings(reference, current)
    alpha = config.significance / (len(numbers) + 1 + (vectors is not None))
    rng = np.random.default_rng(0)
    tests: list[DriftTest] = []
    for name in numbers:
        before, now = (frame[name].dropna().to_numpy(dtype=np.float64) for frame in (reference, current))
        outcome = kolmogorov_smirnov(before, now, alpha=alpha, min_effect=config.min_effect)
        moved = f"{name} (median {np.median(before):.3g} → {np.median(now):.3g})"
        tests.append(_test(name, outcome, moved))
    labels = [frame["label"].astype(str).tolist() for frame in (reference, current)]
    outcome = total_variation(*labels, alpha=alpha, min_effect=config.min_effect, rng=rng)
    tests.append(_test("label", outcome, f"label ({outcome.statistic:.0%} of the answers moved to other classes)"))
    if vectors is not None:
        outcome = domain_classifier(*vectors, alpha=alpha, min_effect=config.min_effect, rng=rng)
        told = f"embedding (a classifier tells the new pictures from the old, area under the curve {outcome[0]:.2f})"
        tests.append(_test("embedding", outcome, told))
    return tests


def _test(name: str, outcome: TwoSample, sentence: str) -> DriftTest:
    return DriftTest(
        name=name,
        statistic=outcome.statistic,
        threshold=outcome.threshold,
        p_value=outcome.p_value,
        effect_size=outcome.effect,
        drifted=outcome.statistic > outcome.threshold,
        sentence=sentence,
    )


def _embeddings(
    reference: "pd.DataFrame", current: "pd.DataFrame"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    if "embedding" not in reference.columns or "embedding" not in current.columns:
        return None
    before, now = _stack(reference["embedding"].dropna().tolist()), _stack(current["embedding"].dropna().tolist())
    if before is None or now is None:
        return None
    if before.shape[1] != now.shape[1]:
        raise ImagoError(
            f"The reference's embeddings have {before.shape[1]} numbers, the predictions' {now.shape[1]}: they are "
            "of different models. Compare the predictions of one version with its own reference."
        )
    return before, now


def _stack(cells: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    vectors = [np.frombuffer(cell, dtype="<f4") if isinstance(cell, bytes) else np.asarray(cell) for cell in cells]
    if not vectors:
        return None
    if len({vector.shape for vector in vectors}) > 1:
        raise ImagoError("The embeddings differ in length: they are of different models. Compare one version alone.")
    return np.stack(vectors).astype(np.float64)


def _window(current: "pd.DataFrame", count: int | None) -> Window:
    times = current["time"].dropna().astype(str) if "time" in current.columns else None
    count = len(current) if count is None else count
    if times is None or times.empty:
        return Window(since=None, until=None, count=count)
    return Window(since=times.min(), until=times.max(), count=count)


def _report(
    verdict: Verdict,
    sentence: str,
    window: Window,
    tests: list[DriftTest],
    current: "pd.DataFrame",
    config: MonitoringConfig,
    reference: "pd.DataFrame | None" = None,
) -> DriftReport:
    accuracy, feedback = accuracy_by_feedback(current)
    evidently, theirs = ({}, "") if reference is None else _evidently(reference, current, config, len(tests))
    report = DriftReport(
        verdict=verdict,
        sentence=sentence,
        window=window,
        tests=tuple(tests),
        accuracy=accuracy,
        feedback=feedback,
        estimated_accuracy=estimate_accuracy(current),
        evidently=evidently,
        page="",
    )
    return report.model_copy(update={"page": _render(report, theirs)})


def _evidently(
    reference: "pd.DataFrame", current: "pd.DataFrame", config: MonitoringConfig, tests: int
) -> tuple[dict[str, Any], str]:
    """Return Evidently's snapshot of the columns, and its page, which needs nothing from the network."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import UniqueValueCount, ValueDrift

    numbers = [name for name in NUMBERS if reference[name].notna().any() and current[name].notna().any()]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=["label"])
    alpha = config.significance / max(1, tests)
    metrics = [ValueDrift(column=name, method="ks", threshold=alpha) for name in numbers]
    snapshot = Report([*metrics, UniqueValueCount(column="label")]).run(
        current_data=Dataset.from_pandas(current[[*numbers, "label"]], definition),
        reference_data=Dataset.from_pandas(reference[[*numbers, "label"]], definition),
    )
    metrics_found = [_plain(metric) for metric in snapshot.dict()["metrics"]]
    return {"metrics": metrics_found}, snapshot.get_html_str(as_iframe=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _render(report: DriftReport, evidently: str) -> str:
    folder = Path(__file__).resolve().parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    ours = environment.get_template("drift.html").render(report=report)
    if not evidently:
        return ours
    style, body = (re.search(rf"<{tag}\b.*</{tag}>", ours, re.DOTALL) for tag in ("style", "main"))
    if style is None or body is None or "<body>" not in evidently:
        raise ImagoError("Evidently's page is not laid out as expected: install the version named in pyproject.toml.")
    return evidently.replace("</head>", f"{style[0]}</head>", 1).replace("<body>", f"<body>{body[0]}", 1)
