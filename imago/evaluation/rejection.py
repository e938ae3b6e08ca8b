"""When the model had better say "I do not know", and whether it does: the price of answering, and strangers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used

from imago.evaluation.bootstrap import wilson
from imago.evaluation.metrics import Finding, Interval, wilson_interval

_POINTS = 100
_MISSED = 0.025  # of an interval, at either end

Floats = npt.NDArray[np.floating]
Rights = npt.NDArray[np.bool_]


class RiskPoint(Finding):
    """The share of wrong answers among the surest, when so large a share of the pictures is answered."""

    coverage: float
    error: float


class Strangers(Finding):
    """How pictures that show none of the model's classes are told from those that do."""

    what: str  # which pictures they are
    count: int
    withheld: int
    auroc: float  # how often a picture of its classes is given the greater confidence than a stranger
    auroc_interval: Interval | None = None
    are_easy: bool = False  # drawings, for a model that knows photographs alone

    @property
    def withheld_share(self) -> float:
        return self.withheld / self.count

    @property
    def withheld_interval(self) -> Interval:
        return wilson_interval(self.withheld, self.count)


class Rejection(Finding):
    """What withholding the less sure answers brings, on the test pictures."""

    coverage: float  # the share of pictures whose answer stands at the threshold
    coverage_interval: Interval  # Wilson's
    error: float | None  # the share of wrong ones among those; None where none stands
    error_interval: Interval | None  # Wilson's
    aurc: float  # the mean of the error over all coverages
    curve: tuple[RiskPoint, ...]
    strangers: Strangers | None  # None where none could be had
    validation_coverage: float | None = None  # where the threshold was fitted
    validation_error: float | None = None


def judge_rejection(
    confidence: Floats,
    right: Rights,
    rejected: Rights,
    strangers: Strangers | None = None,
    *,
    validation: tuple[float | None, float | None] = (None, None),
) -> Rejection:
    """Judge answers by their confidence (N,), whether they are right (N,) and whether they are withheld (N,).

    `validation` is the coverage and the error that the threshold has where it was fitted.
    """
    errors = risk_by_coverage(confidence, right)
    answered, wrong = int((~rejected).sum()), int((~rejected & ~right).sum())
    counts = np.unique(np.ceil(np.linspace(0, len(right), _POINTS + 1)[1:]).astype(int))
    return Rejection(
        coverage=answered / len(right),
        coverage_interval=wilson_interval(answered, len(right)),
        error=wrong / answered if answered else None,
        error_interval=wilson_interval(wrong, answered) if answered else None,
        aurc=float(errors.mean()),
        curve=tuple(
            RiskPoint(coverage=int(count) / len(right), error=float(errors[count - 1])) for count in counts.tolist()
        ),
        strangers=strangers,
        validation_coverage=validation[0],
        validation_error=validation[1],
    )


def risk_by_coverage(confidence: Floats, right: Rights) -> npt.NDArray[np.float64]:
    """Return the share of wrong answers among the 1, 2, … N surest; its mean is the area under the risk–coverage curve.

    Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500. Of answers of one confidence any may come first: their
    mistakes are spread evenly among them.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~right[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    counts = np.arange(1, len(ranked) + 1)
    return np.asarray(np.interp(counts, [0, *(last + 1)], [0, *wrong[last]]) / counts)


def judge_strangers(
    what: str, confidence: Floats, withheld: Sequence[bool], own: Floats, *, are_easy: bool = False
) -> Strangers:
    """Compare the confidence (M,) in strangers with that in pictures of the model's `own` classes (N,)."""
    auroc, interval = area_under_roc(own, confidence)
    return Strangers(
        what=what,
        count=len(confidence),
        withheld=sum(withheld),
        auroc=auroc,
        auroc_interval=interval,
        are_easy=are_easy,
    )


def area_under_roc(positive: Floats, negative: Floats) -> tuple[float, Interval]:
    """Return how often a score (N,) is above a negative's (M,), ties a half, and the 95 % interval of that.

    The interval has DeLong's standard error, from placements (1988, https://doi.org/10.2307/2531595), on the scale of
    the log odds, and Student's t for as many pictures as the smaller group has: few, or an area near 1, would make it
    too short otherwise. Where the placements do not differ, as where all pairs are in order, it is Wilson's for as many
    pictures. One picture has no spread to go by: what is left is Markov's inequality, true of any placement.
    """
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]))
    count = len(positive)
    above = (ranks[:count] - scipy.stats.rankdata(positive)) / len(negative)  # of the negatives, below each positive
    below = 1 - (ranks[count:] - scipy.stats.rankdata(negative)) / count  # of the positives, above each negative
    area = float(above.mean())
    fewer = min(count, len(negative))
    if fewer < 2:
        return area, Interval(low=_MISSED * area, high=1 - _MISSED * (1 - area))
    error = sum(values.var(ddof=1) / len(values) for values in (above, below)) ** 0.5
    if error == 0:
        low, high = wilson(area, fewer)
    else:
        reach = scipy.stats.t.ppf(1 - _MISSED, fewer - 1) * error / (area * (1 - area))
        low, high = scipy.special.expit(scipy.special.logit(area) + np.array([-reach, reach])).tolist()
    return area, Interval(low=low, high=high)
