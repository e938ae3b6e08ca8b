"""Tests of whether two samples come from one distribution: each gives a statistic, and what it must exceed.

Thresholds hold for the sample sizes at hand: where nothing has changed, a statistic exceeds its own with probability
`alpha`. No pandas in here.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PERMUTATIONS_AT_ONCE = 2000
EMBEDDING_ROWS = 1000
COMPONENTS = 32
FOLDS = 5

Array = npt.NDArray[np.float64]


class TwoSample(NamedTuple):
    """A test's outcome; `effect` is 0 where the samples agree and 1 where they have nothing in common."""

    statistic: float
    threshold: float
    p_value: float
    effect: float


def kolmogorov_smirnov(reference: Array, current: Array, *, alpha: float, min_effect: float) -> TwoSample:
    """Compare two samples of a number by the largest distance between their distribution functions."""
    from scipy.stats import ks_2samp

    result = ks_2samp(reference, current)
    statistic = float(result.statistic)
    effective = max(1, round(len(reference) * len(current) / (len(reference) + len(current))))
    threshold = max(min_effect, _critical_distance(alpha, effective))
    return TwoSample(statistic, threshold, float(result.pvalue), statistic)


def total_variation(
    reference: list[str], current: list[str], *, alpha: float, min_effect: float, rng: np.random.Generator
) -> TwoSample:
    """Compare two samples of a category by their total variation distance, with a permutation test.

    A chi-squared test that takes the reference's shares for exact gives false alarms where the reference is small.
    """
    names, codes = np.unique(np.asarray([*reference, *current], dtype=object).astype(str), return_inverse=True)
    observed = np.bincount(codes[len(reference) :], minlength=len(names))
    totals = np.bincount(codes, minlength=len(names))
    size = 5 * _permutations(alpha)
    permuted = rng.multivariate_hypergeometric(totals, len(current), size=size, method="marginals")
    distances = _distances(permuted, totals, len(current))
    statistic = float(_distances(observed[None], totals, len(current))[0])
    return TwoSample(statistic, max(min_effect, _critical(distances, alpha)), _p_value(distances, statistic), statistic)


def domain_classifier(
    reference: Array, current: Array, *, alpha: float, min_effect: float, rng: np.random.Generator
) -> TwoSample:
    """Compare two samples of vectors, (N, D) and (M, D), by how well a classifier tells one from the other.

    The classifier is a linear discriminant on whitened principal components; the statistic is its cross-validated
    area under the ROC curve, tested by permutation (Lopez-Paz and Oquab, 2017, arXiv:1610.06545).
    """
    reference, current = _at_most(reference, EMBEDDING_ROWS, rng), _at_most(current, EMBEDDING_ROWS, rng)
    rows = _whitened(np.concatenate([reference, current]))
    is_current = np.arange(len(rows)) >= len(reference)
    fold_of = rng.permutation(len(rows)) % FOLDS
    statistic = float(_cross_validated_areas(rows, is_current[None].astype(np.float32), fold_of)[0])
    permuted: list[float] = []
    for start in range(0, _permutations(alpha), PERMUTATIONS_AT_ONCE):
        count = min(PERMUTATIONS_AT_ONCE, _permutations(alpha) - start)
        assignments = rng.permuted(np.tile(is_current, (count, 1)), axis=1).astype(np.float32)
        permuted.extend(_cross_validated_areas(rows, assignments, fold_of))
    threshold = max(0.5 + min_effect / 2, _critical(np.asarray(permuted), alpha))
    return TwoSample(statistic, threshold, _p_value(np.asarray(permuted), statistic), max(0.0, 2 * statistic - 1))


def _cross_validated_areas(
    rows: npt.NDArray[np.float32], is_current: npt.NDArray[np.float32], fold_of: npt.NDArray[np.int64]
) -> Array:
    """Return the mean area under the curve for each assignment of the rows, (P, N) of 0 and 1, to the samples."""
    areas = []
    for fold in range(FOLDS):
        held_out = fold_of == fold
        chosen, fitted = is_current[:, ~held_out], rows[~held_out]
        ours = chosen.sum(axis=1, keepdims=True)
        total = fitted.sum(axis=0)
        inside = chosen @ fitted
        direction = inside / np.maximum(ours, 1) - (total - inside) / np.maximum(len(fitted) - ours, 1)
        areas.append(_areas(direction @ rows[held_out].T, is_current[:, held_out]))
    return np.asarray(np.nanmean(areas, axis=0), dtype=np.float64)


def _areas(scores: npt.NDArray[np.float32], is_current: npt.NDArray[np.float32]) -> Array:
    """Return the area under the ROC curve of each row; not a number where a row has only one sample in it."""
    ours = np.take_along_axis(is_current, scores.argsort(axis=1), axis=1)
    count = ours.sum(axis=1, dtype=np.float64)
    pairs = count * (scores.shape[1] - count)
    wins = ours @ np.arange(1, scores.shape[1] + 1, dtype=np.float32) - count * (count + 1) / 2
    return np.asarray(np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0))


def _whitened(rows: Array) -> npt.NDArray[np.float32]:
    from sklearn.utils.extmath import randomized_svd

    centred = rows - rows.mean(axis=0)
    count = max(1, min(COMPONENTS, centred.shape[1], len(centred) // 8))
    left, scales, _ = randomized_svd(centred, n_components=count, random_state=0)
    kept = scales > 1e-6 * max(float(scales[0]), 1e-12)
    return np.ascontiguousarray(left[:, kept] * np.sqrt(len(rows)), dtype=np.float32)


def _at_most(rows: Array, count: int, rng: np.random.Generator) -> Array:
    return rows if len(rows) <= count else rows[rng.choice(len(rows), count, replace=False)]


@lru_cache
def _critical_distance(alpha: float, size: int) -> float:
    from scipy.stats import kstwo

    return float(kstwo.isf(alpha, size))


def _distances(counts: npt.NDArray[np.int64], totals: npt.NDArray[np.int64], size: int) -> Array:
    rest = int(totals.sum()) - size
    return np.asarray(np.abs(counts / size - (totals - counts) / rest).sum(axis=-1) / 2)


def _permutations(alpha: float) -> int:
    return max(1999, int(np.ceil(2 / alpha)))


def _critical(permuted: Array, alpha: float) -> float:
    """Return what a statistic must exceed for its permutation p-value to be at most `alpha`."""
    allowed = int(np.floor(alpha * (len(permuted) + 1) + 1e-9)) - 1
    return float(np.sort(permuted)[::-1][allowed])


def _p_value(permuted: Array, statistic: float) -> float:
    return float((1 + np.count_nonzero(permuted >= statistic)) / (1 + len(permuted)))
