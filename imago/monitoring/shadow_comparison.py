"""How a shadow's answers compare with those that the clients were given, picture by picture."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import Field

from imago.evaluation.metrics import Finding, Interval, wilson_interval
from imago.evaluation.significance import mcnemar
from imago.monitoring.prediction_store import Mirrored

SIGNIFICANCE = 0.05  # of McNemar's test, below which a verdict is given
CLASSES = 5  # that are listed
WORST_FAILURES = 0.01  # of what a shadow was asked last; with more it does not do
RECENT = 300  # pictures; with an answer to all of them, failures are surely (at 95 %) fewer than those

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
    seconds: float | None  # of one core, the median of a picture
    shadow_seconds: float | None
    classes: tuple[Disagreement, ...]  # where they differ most, the most pictures first


def compare_shadow(mirrored: Sequence[Mirrored]) -> ShadowComparison:
    """Compare what two versions said of the same pictures.

    The true labels are those that people have given, which are no random sample of what is asked: what clients correct
    is more often wrong. Both are judged on the same ones, so that it says which is better, and not how good either is.

    A shadow fails where it does not answer now: what it did not answer before is counted, and no verdict on it.
    """
    answered = [one for one in mirrored if one.shadow_label is not None]
    failed = [one for one in mirrored if one.shadow_label is None]
    failures = Counter(one.failure or "unreachable" for one in failed)
    recent = sorted(mirrored, key=lambda one: (one.time, one.shadow_label is None))[-RECENT:]
    recent_failures = sum(one.shadow_label is None for one in recent)
    agreeing = sum(one.label == one.shadow_label for one in answered)
    known = [one for one in answered if one.feedback is not None]
    right = [one.label == one.feedback for one in known]
    shadow_right = [one.shadow_label == one.feedback for one in known]
    only_champion = sum(ours and not theirs for ours, theirs in zip(right, shadow_right, strict=True))
    only_shadow = sum(theirs and not ours for ours, theirs in zip(right, shadow_right, strict=True))
    p_value = mcnemar(only_shadow, only_champion)
    timed = [one for one in answered if one.seconds is not None and one.shadow_seconds is not None]
    return ShadowComparison(
        verdict=_verdict(len(recent), recent_failures, only_shadow - only_champion, p_value),
        mirrored=len(mirrored),
        answered=len(answered),
        failures=dict(sorted(failures.items())),
        last_failure=max((one.time for one in failed), default=None),
        recent=len(recent),
        recent_failures=recent_failures,
        agreeing=agreeing,
        agreement=agreeing / len(answered) if answered else None,
        agreement_interval=wilson_interval(agreeing, len(answered)) if answered else None,
        rejected=sum(one.rejected for one in answered),
        shadow_rejected=sum(one.shadow_rejected for one in answered),
        feedback=len(known),
        accuracy=sum(right) / len(known) if known else None,
        shadow_accuracy=sum(shadow_right) / len(known) if known else None,
        only_champion_right=only_champion,
        only_shadow_right=only_shadow,
        p_value=p_value,
        seconds=median(one.seconds for one in timed if one.seconds is not None) if timed else None,
        shadow_seconds=median(one.shadow_seconds for one in timed if one.shadow_seconds is not None) if timed else None,
        classes=_disagreements(answered),
    )


def _verdict(recent: int, failures: int, gain: int, p_value: float) -> Verdict:
    if not recent:
        return "nothing_mirrored"
    if failures > WORST_FAILURES * recent:
        return "fails"
    if p_value > SIGNIFICANCE:
        return "undecided"
    return "shadow_better" if gain > 0 else "champion_better"


def _disagreements(answered: Sequence[Mirrored]) -> tuple[Disagreement, ...]:
    said = Counter(one.label for one in answered)
    instead: dict[str, Counter[str]] = {}
    for one in answered:
        if one.shadow_label is not None and one.shadow_label != one.label:
            instead.setdefault(one.label, Counter())[one.shadow_label] += 1
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
