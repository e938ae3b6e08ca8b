"""How often a classifier is right, how sure that number is, and which classes it takes for which."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from imago.errors import ImagoError
from imago.evaluation.calibration import expected_calibration_error

_Z95 = 1.959963984540054
_LEAST = 1e-12

Counts = npt.NDArray[np.int64]


class Finding(BaseModel):
    """A part of what an evaluation found."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Finding):
    """The range that holds the true value in 95 of 100 such tests."""

    low: float
    high: float


class ClassMetrics(Finding):
    """One class: its test pictures, and how they were answered. None where there is nothing to divide by."""

    label: str
    support: int  # pictures that show it
    predicted: int  # pictures that were answered with it
    precision: float | None
    recall: float | None
    f1: float | None


class Metrics(Finding):
    """Every number of a classifier on one set of pictures."""

    pictures: int
    classes: tuple[str, ...]
    accuracy: float
    accuracy_interval: Interval  # Wilson's
    top5: float
    balanced_accuracy: float
    balanced_accuracy_interval: Interval | None  # bootstrap
    macro_f1: float
    macro_f1_interval: Interval | None  # bootstrap
    log_loss: float
    expected_calibration_error: float
    mean_confidence: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # [shown][answered]

    @property
    def chance(self) -> float:
        """The accuracy of always answering with the commonest class."""
        return max(entry.support for entry in self.per_class) / self.pictures

    def confusions(self, count: int) -> list[tuple[str, str, int]]:
        """Return the commonest mistakes: what was shown, what was answered, how often."""
        pairs = [
            (self.classes[shown], self.classes[answered], times)
            for shown, row in enumerate(self.confusion)
            for answered, times in enumerate(row)
            if shown != answered and times
        ]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:count]


def compute_metrics(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    *,
    bootstrap_samples: int,
    seed: int,
) -> Metrics:
    """Judge probabilities (N, C) against labels (N,), which index `classes`.

    Balanced accuracy and macro F1 are means over the classes that the pictures show. Raises ImagoError for no
    pictures, or values that are not finite.
    """
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.shape != (len(truth), len(classes)):
        raise ValueError(f"Expected {len(truth)}×{len(classes)} probabilities, got {values.shape}.")
    if not len(truth):
        raise ImagoError("There are no test pictures to judge the model by: give the dataset a test split.")
    if not np.isfinite(values).all():
        raise ImagoError("The model gave probabilities that are not finite numbers: train it again at a lower rate.")
    answers = values.argmax(axis=1)
    confusion = confusion_matrix(truth, answers, len(classes))
    right = int(np.trace(confusion))
    chosen = values[np.arange(len(truth)), truth]
    order = np.argsort(-values, axis=1, kind="stable")[:, :5]
    balanced, f1 = _balanced_and_f1(confusion)
    balanced_interval, f1_interval = _bootstrap(truth, answers, len(classes), bootstrap_samples, seed)
    return Metrics(
        pictures=len(truth),
        classes=tuple(classes),
        accuracy=right / len(truth),
        accuracy_interval=wilson_interval(right, len(truth)),
        top5=float((order == truth[:, None]).any(axis=1).mean()),
        balanced_accuracy=balanced,
        balanced_accuracy_interval=balanced_interval,
        macro_f1=f1,
        macro_f1_interval=f1_interval,
        log_loss=float(-np.log(np.clip(chosen, _LEAST, 1.0)).mean()),
        expected_calibration_error=expected_calibration_error(values, truth),
        mean_confidence=float(values.max(axis=1).mean()),
        per_class=tuple(_class_metrics(confusion, index, label) for index, label in enumerate(classes)),
        confusion=tuple(tuple(int(times) for times in row) for row in confusion),
    )


def confusion_matrix(labels: Counts, answers: Counts, classes: int) -> Counts:
    """Return how often each class (row) was answered with each class (column)."""
    pairs = np.bincount(labels * classes + answers, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def wilson_interval(right: int, total: int) -> Interval:
    """Return Wilson's 95 % interval of a share, which stays honest near 0 and 1; (0, 1) for a total of 0."""
    if not total:
        return Interval(low=0.0, high=1.0)
    share, square = right / total, _Z95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = _Z95 * (share * (1 - share) / total + square / (4 * total**2)) ** 0.5 / (1 + square / total)
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def _class_metrics(confusion: Counts, index: int, label: str) -> ClassMetrics:
    right, support, predicted = (
        int(count) for count in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return ClassMetrics(
        label=label,
        support=support,
        predicted=predicted,
        precision=right / predicted if predicted else None,
        recall=right / support if support else None,
        f1=2 * right / (support + predicted) if support else None,
    )


def _balanced_and_f1(confusion: Counts) -> tuple[float, float]:
    right, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    shown = support > 0
    recall = right[shown] / support[shown]
    f1 = 2 * right[shown] / (support[shown] + predicted[shown])
    return float(recall.mean()), float(f1.mean())


def _bootstrap(
    labels: Counts, answers: Counts, classes: int, samples: int, seed: int
) -> tuple[Interval | None, Interval | None]:
    if not samples:
        return None, None
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            _balanced_and_f1(confusion_matrix(labels[chosen], answers[chosen], classes))
            for chosen in (rng.integers(0, len(labels), size=len(labels)) for _ in range(samples))
        ]
    )
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return (
        Interval(low=float(low[0]), high=float(high[0])),
        Interval(low=float(low[1]), high=float(high[1])),
    )
