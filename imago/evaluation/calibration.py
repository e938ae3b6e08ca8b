"""Whether a model's confidence can be believed: temperature, calibration error, and when to say "I do not know"."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

BINS = 15
"""Of equal width in confidence, over which the calibration error is averaged."""

_COLDEST, _HOTTEST = 0.05, 20.0


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the probabilities of logits (N, C) divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def before_temperature(probabilities: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Return what the probabilities (N, C) were before their logits were divided by the temperature."""
    values = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):  # what is 0 stays 0
        return softmax(np.log(values), 1 / temperature)


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature, from 0.05 to 20, under which logits (N, C) are the most likely; 1.0 for no pictures.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The likelihood has one optimum in the temperature's logarithm.
    Half a picture of any other label is assumed beside the given ones: a model that has all of a few pictures right
    would otherwise be fitted to a certainty that they do not bear out.
    """
    values, truth = _checked(logits, labels)
    if len(values) == 0 or values.shape[1] < 2:
        return 1.0
    share = 0.5 / len(values)

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        target = (1 - share) * scaled[np.arange(len(scaled)), truth] + share * scaled.mean(axis=1)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - target))

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


@dataclass(frozen=True)
class ReliabilityBin:
    """The pictures whose confidence lies between `low` and `high`: what was claimed, and what came true."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> list[ReliabilityBin]:
    """Return the bins of equal width in confidence that hold at least one picture."""
    values, truth = _checked(probabilities, labels)
    if len(values) == 0:
        return []
    confidence = values.max(axis=1)
    right = values.argmax(axis=1) == truth
    where = bin_of(confidence, bins)
    return [
        ReliabilityBin(
            low=index / bins,
            high=(index + 1) / bins,
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for index in range(bins)
        if (inside := where == index).any()
    ]


def bin_of(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence (N,); a confidence of 1 falls into the last."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def expected_calibration_error(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over bins of equal width; 0.0 for no pictures."""
    found = reliability(probabilities, labels, bins=bins)
    total = sum(entry.count for entry in found)
    return sum(entry.count * abs(entry.confidence - entry.accuracy) for entry in found) / total if total else 0.0


def fit_reject_threshold(
    probabilities: Floats, labels: Labels, *, target_error: float | None = None, coverage: float | None = None
) -> float:
    """Return the confidence below which an answer is better withheld; answers at it or above stand.

    Give one of two aims: `target_error`, the greatest share of wrong answers among those that stand (the lowest
    threshold that reaches it; just above the greatest confidence where none does, so that all are withheld), or
    `coverage`, the share of pictures that must be answered. It lies midway between the least sure answer that stands
    and the next below, for the endpoint gives other last bits than training. Raises ValueError for none or both.
    """
    if (target_error is None) == (coverage is None):
        raise ValueError("fit_reject_threshold takes either target_error or coverage.")
    values, truth = _checked(probabilities, labels)
    if len(values) == 0:
        return 0.0
    confidence = values.max(axis=1).astype(np.float32)  # in which the endpoint cannot tell 1 from nearly 1
    if coverage is not None:
        kept = int(np.ceil(coverage * len(confidence)))
        return _just_below(np.sort(confidence)[::-1][max(kept, 1) - 1], confidence)
    wrong = values.argmax(axis=1) != truth
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    error = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    good = np.flatnonzero(last_of_ties & (error <= float(target_error or 0.0)))
    if len(good) == 0:
        return float(np.nextafter(ranked[0], np.float32(2)))
    return _just_below(ranked[good[-1]], confidence)


def _just_below(least: np.float32, confidence: npt.NDArray[np.float32]) -> float:
    """Return what is midway between this confidence and the next below; 0.0 where there is none."""
    lower = confidence[confidence < least]
    return (float(least) + float(lower.max())) / 2 if len(lower) else 0.0


def _checked(values: Floats, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    matrix, truth = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if matrix.ndim != 2 or truth.shape != (len(matrix),):
        raise ValueError(f"Expected (N, C) values and (N,) labels, got {matrix.shape} and {truth.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError("Logits or probabilities are not finite numbers.")
    return matrix, truth
