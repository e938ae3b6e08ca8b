"""How often a classifier is right, how sure that number is, and which classes it takes for which."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from imago.errors import ImagoError
from imago.evaluation.bootstrap import Outcomes, wilson

Counts = npt.NDArray[np.int64]


class Finding(BaseModel):
    """A part of what an evaluation found."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Finding):
    """The range that holds the true value in 95 of 100 such tests; of a calibration error, in about 90."""

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
    precision_interval: Interval | None = None  # Wilson's
    recall_interval: Interval | None = None  # Wilson's


class Metrics(Finding):
    """Every number of a classifier on one set of pictures; intervals are from `bootstrap` where nothing else is said.

    Those that are None by default are missing from the reports of earlier versions.
    """

    pictures: int
    classes: tuple[str, ...]
    accuracy: float
    accuracy_interval: Interval  # Wilson's
    top5: float
    top5_interval: Interval | None = None  # Wilson's
    balanced_accuracy: float
    balanced_accuracy_interval: Interval | None
    macro_f1: float
    macro_f1_interval: Interval | None
    log_loss: float
    log_loss_interval: Interval | None = None
    expected_calibration_error: float
    expected_calibration_error_interval: Interval | None = None
    mean_confidence: float
    mean_confidence_interval: Interval | None = None
    uncalibrated_log_loss: float | None = None  # before the temperature
    uncalibrated_log_loss_interval: Interval | None = None
    uncalibrated_expected_calibration_error: float | None = None
    uncalibrated_expected_calibration_error_interval: Interval | None = None
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
    temperature: float = 1.0,
) -> Metrics:
    """Judge probabilities (N, C), which were divided by the temperature, against labels (N,) that index `classes`.

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
    confusion = confusion_matrix(truth, values.argmax(axis=1), len(classes))
    right = int(np.trace(confusion))
    outcomes = Outcomes.of(values, truth, temperature)
    figures = {name: float(value[0]) for name, value in outcomes.figures(np.ones((1, len(truth)))).items()}
    ranges = outcomes.intervals(bootstrap_samples, seed)
    intervals = {
        f"{name}_interval": Interval(low=ranges[name][0], high=ranges[name][1]) if name in ranges else None
        for name in figures
    }
    return Metrics.model_validate(
        {
            "pictures": len(truth),
            "classes": tuple(classes),
            "accuracy": right / len(truth),
            "accuracy_interval": wilson_interval(right, len(truth)),
            "per_class": tuple(_class_metrics(confusion, index, label) for index, label in enumerate(classes)),
            "confusion": tuple(tuple(int(times) for times in row) for row in confusion),
            **figures,
            **intervals,
        }
    )


def confusion_matrix(labels: Counts, answers: Counts, classes: int) -> Counts:
    """Return how often each class (row) was answered with each class (column)."""
    pairs = np.bincount(labels * classes + answers, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def wilson_interval(right: int, total: int) -> Interval:
    """Return Wilson's 95 % interval of a share, which stays honest near 0 and 1; (0, 1) for a total of 0."""
    if not total:
        return Interval(low=0.0, high=1.0)
    low, high = wilson(right / total, total)
    return Interval(low=low, high=high)


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
        precision_interval=wilson_interval(right, predicted) if predicted else None,
        recall_interval=wilson_interval(right, support) if support else None,
    )
