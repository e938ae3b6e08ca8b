"""How a shadow's answers compare with those that the clients were given, picture by picture."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

from pydantic import Field

from imago.evaluation.metrics import Finding, Interval, wilson_interval
from imago.evaluation.significance import mcnemar
from imago.monitoring.prediction_store import Counted, Mirrored, PredictionStore

SIGNIFICANCE = 0.05  # of McNemar's test, below which a verdict is given
CLASSES = 5  # that are listed
WORST_FAILURES = 0.01  # of what a shadow was asked last; with more it does not do
RECENT = 300  # pictures; with an answer to all of them, failures are surely (at 95 %) fewer than those
TIMED = 10_000  # pictures, the last ones, whose median time is told

Verdict = Literal["nothing_mirrored", "fails", "undecided", "shadow_better", "champion_better"]


class Disagreement(Finding):
    """A label of the champion's, and how often its shadow said another."""

    label: str
    pictures: int  # that the champion gave this label, and the shadow any
    differing: int
    instead: str  # what the shadow said most often
    instead_pictures: int


class ShadowComparison(Finding):
    """Two versions on the pictures that both were asked. What has nothing to be counted from is None."""

    verdict: Verdict
    mirrored: int  # pictures that the shadow was asked
    answered: int  # by it
    failures: dict[str, int]  # by reason: unreachable, refused, nonsense
    last_failure: str | None  # when: ISO 8601, UTC
    recent: int  # of the pictures: those asked last, by which it is judged whether it fails
    recent_failures: int
    agreeing: int  # of those answered: both say the same label
    agreement: float | None
    agreement_interval: Interval | None  # Wilson's
    rejected: int  # of those answered, by the champion
    shadow_rejected: int
    feedback: int  # of those answered: the true label is known
    accuracy: float | None  # the champion's on these
    shadow_accuracy: float | None
    only_champion_right: int
    only_shadow_right: int
    p_value: float = Field(ge=0.0, le=1.0)  # of McNemar's exact test, two-sided
    seconds: float | None  # of one core, the median of a picture, of the last `TIMED`
    shadow_seconds: float | None
    classes: tuple[Disagreement, ...]  # where they differ most, the most pictures first


def compare_shadow(store: PredictionStore, model: str, champion: str, shadow: str) -> ShadowComparison:
    """Compare what two versions of a model said of the same pictures, in memory that does not grow with their number.

    The true labels are those that people have given, which are no random sample of what is asked: what clients correct
    is more often wrong. Both are judged on the same ones, so that it says which is better, and not how good either is.

    A shadow fails where it does not answer now: what it did not answer before is counted, and no verdict on it.
    """
    last = store.mirrored(model, champion, shadow, most=TIMED)  # first, so that each of these is counted
    return comparison(store.counted(model, champion, shadow), last)


def comparison(counted: Sequence[Counted], last: Sequence[Mirrored]) -> ShadowComparison:
    """Compare two versions by all that they said, counted, and by the last pictures, the last first."""
    answered = [one for one in counted if one.shadow_label is not None]
    failed = [one for one in counted if one.shadow_label is None]
    failures: Counter[str] = Counter()
    for one in failed:
        failures[one.failure or "unreachable"] += one.pictures
    pictures = _pictures(answered)
    agreeing = _pictures(one for one in answered if one.label == one.shadow_label)
    feedback = _pictures(one for one in answered if one.right is not None)
    right = _pictures(one for one in answered if one.right)
    shadow_right = _pictures(one for one in answered if one.shadow_right)
    only_champion = _pictures(one for one in answered if one.right and not one.shadow_right)
    only_shadow = _pictures(one for one in answered if one.shadow_right and not one.right)
    p_value = mcnemar(only_shadow, only_champion)
    recent = last[:RECENT]
    recent_failures = sum(one.shadow_label is None for one in recent)
    timed = [
        (one.seconds, one.shadow_seconds)
        for one in last
        if one.shadow_label is not None and one.seconds is not None and one.shadow_seconds is not None
    ]
    return ShadowComparison(
        verdict=_verdict(len(recent), recent_failures, only_shadow - only_champion, p_value),
        mirrored=pictures + failures.total(),
        answered=pictures,
        failures=dict(sorted(failures.items())),
        last_failure=max((one.last for one in failed), default=None),
        recent=len(recent),
        recent_failures=recent_failures,
        agreeing=agreeing,
        agreement=agreeing / pictures if pictures else None,
        agreement_interval=wilson_interval(agreeing, pictures) if pictures else None,
        rejected=_pictures(one for one in answered if one.rejected),
        shadow_rejected=_pictures(one for one in answered if one.shadow_rejected),
        feedback=feedback,
        accuracy=right / feedback if feedback else None,
        shadow_accuracy=shadow_right / feedback if feedback else None,
        only_champion_right=only_champion,
        only_shadow_right=only_shadow,
        p_value=p_value,
        seconds=median(ours for ours, _ in timed) if timed else None,
        shadow_seconds=median(theirs for _, theirs in timed) if timed else None,
        classes=_disagreements(answered),
    )


def _pictures(counted: Iterable[Counted]) -> int:
    return sum(one.pictures for one in counted)


def _verdict(recent: int, failures: int, gain: int, p_value: float) -> Verdict:
    if not recent:
        return "nothing_mirrored"
    if failures > WORST_FAILURES * recent:
        return "fails"
    if p_value > SIGNIFICANCE:
        return "undecided"
    return "shadow_better" if gain > 0 else "champion_better"


def _disagreements(answered: Sequence[Counted]) -> tuple[Disagreement, ...]:
    said: Counter[str] = Counter()
    instead: dict[str, Counter[str]] = {}
    for one in answered:
        said[one.label] += one.pictures
        if one.shadow_label is not None and one.shadow_label != one.label:
            instead.setdefault(one.label, Counter())[one.shadow_label] += one.pictures
    found = [
        Disagreement(
            label=label,
            pictures=said[label],
            differing=others.total(),
            instead=min(others, key=lambda other: (-others[other], other)),
            instead_pictures=max(others.values()),
        )
        for label, others in instead.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.differing, -one.differing / one.pictures, one.label))[:CLASSES])
