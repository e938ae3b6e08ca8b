"""Whether a challenger may stand for production: only after it was compared with the champion that does."""

from collections.abc import Collection

import scipy  # loads its parts when they are used

from imago.config import GateConfig
from imago.errors import some_of
from imago.evaluation.comparison import Comparison, compare, compare_on_shared_classes
from imago.evaluation.metrics import Finding, wilson_interval
from imago.evaluation.report import EvaluationReport
from imago.evaluation.significance import holm


class GateDecision(Finding):
    """What the gate decided, and why, in a sentence with the figures."""

    promoted: bool
    reason: str
    challenger_accuracy: float
    champion_version: str | None
    challenger_version: str | None = None  # what stands for production from now on, where it was promoted
    comparison: Comparison | None  # None where there was no champion, or none that can be compared


def decide(
    challenger: EvaluationReport,
    champion: EvaluationReport | None,
    config: GateConfig,
    *,
    champion_version: str | None = None,
    challenger_version: str | None = None,
    learned: Collection[str] = (),
) -> GateDecision:
    """Decide whether the challenger replaces the champion, which must have been evaluated on the same test pictures.

    The challenger must be good in itself (`min_accuracy` and, unless that is 0, better than always naming one class;
    `max_calibration_error`; where they are set, `min_class_recall`, `max_latency_ms`, `max_model_bytes`), and then be
    right more often; as often with the lower log loss; or less often by no more than `max_accuracy_drop`, unless that
    is surely worse (`significance`). A challenger of more classes must not be surely worse on those that the champion
    knows. Pictures that the champion `learned` from, by their SHA-256, are not compared. A champion that it cannot be
    compared with stays, or goes where `incomparable` is `floor`.
    """
    flaw = _flaw(challenger, config) or (_other_pictures(challenger, champion) if champion else None)
    unlike = _incomparable(challenger, champion, learned) if champion and not flaw else None
    comparison = compare(challenger, champion, learned=learned) if champion and not flaw and not unlike else None
    if flaw:
        promoted, reason = False, flaw
    elif unlike and config.incomparable == "floor":
        promoted, reason = True, f"{unlike} Judged by itself alone (gate.incomparable: floor): {_right(challenger)}."
    elif unlike:
        promoted, reason = False, f"{unlike} The champion stays (gate.incomparable: refuse)."
    elif champion is None or comparison is None:
        promoted, reason = True, f"First of its name: {_right(challenger)}, at least {config.min_accuracy:.1%} asked."
    else:
        shared = compare_on_shared_classes(challenger, champion, learned)
        promoted, reason = _compared(comparison, shared, config)
    return GateDecision(
        promoted=promoted,
        reason=reason,
        challenger_accuracy=challenger.metrics.accuracy,
        champion_version=champion_version,
        challenger_version=challenger_version,
        comparison=comparison,
    )


def already_champion(report: EvaluationReport, version: str, config: GateConfig) -> GateDecision:
    """Say that the model stands for production already, where nothing is left to compare, and which limit it misses."""
    reason = f"It is version {version}, which is in production already: {_right(report)}."
    if flaw := _flaw(report, config):
        reason += f" By the limits of this run it would not have been promoted. {flaw}"
    return GateDecision(
        promoted=True,
        reason=reason,
        challenger_accuracy=report.metrics.accuracy,
        champion_version=version,
        challenger_version=version,
        comparison=None,
    )


def _flaw(challenger: EvaluationReport, config: GateConfig) -> str | None:
    metrics = challenger.metrics
    if metrics.accuracy < config.min_accuracy:
        return f"Not good enough: {_right(challenger)}, at least {config.min_accuracy:.1%} asked (gate.min_accuracy)."
    if config.min_accuracy and metrics.accuracy <= metrics.chance < 1:
        return f"No better than always naming the commonest class ({metrics.chance:.1%}): {_right(challenger)}."
    if metrics.expected_calibration_error > config.max_calibration_error:
        span = metrics.expected_calibration_error_interval
        around = f" (the true error: {span.low:.3f}–{span.high:.3f})" if span else ""
        return (
            f"Its confidence cannot be believed: it is off by {metrics.expected_calibration_error:.3f} on average"
            f"{around}, at most {config.max_calibration_error:.3f} allowed (gate.max_calibration_error)."
        )
    if config.min_class_recall is not None and (left := _left_behind(challenger, config)):
        return left
    if config.max_latency_ms is not None and challenger.latency_ms > config.max_latency_ms:
        return (
            f"Too slow: {challenger.latency_ms:.1f} ms a picture in the middle, at most {config.max_latency_ms:g} ms "
            "allowed (gate.max_latency_ms)."
        )
    if config.max_model_bytes is not None and challenger.model_bytes > config.max_model_bytes:
        return (
            f"Too large: {challenger.model_bytes:,} bytes of model, at most {config.max_model_bytes:,} allowed "
            "(gate.max_model_bytes)."
        )
    return None


def _left_behind(challenger: EvaluationReport, config: GateConfig) -> str | None:
    """Name the worst class whose recall is below what is asked, and surely so.

    A class counts only where an exact binomial test says that so few right answers are no chance, Holm's correction
    applied over all classes that the pictures show: of a class with two test pictures, a wrong answer or two seldom
    prove anything, and of a hundred classes some are unlucky.
    """
    asked = config.min_class_recall or 0.0
    tested = [
        (entry.label, round((entry.recall or 0.0) * entry.support), entry.support)
        for entry in challenger.metrics.per_class
        if entry.support
    ]
    p_values = [
        float(scipy.stats.binomtest(right, support, asked, alternative="less").pvalue) for _, right, support in tested
    ]
    found = [
        (right / support, p_value, label, f"{right} of {support}")
        for (label, right, support), p_value, below in zip(
            tested, p_values, holm(p_values, config.significance), strict=True
        )
        if below
    ]
    if not found:
        return None
    recall, p_value, label, counts = min(found)
    others = f"; {len(found) - 1} more of the classes are below it, too" if len(found) > 1 else ""
    return (
        f"It leaves a class behind: of {label} it names {counts} test pictures right ({recall:.1%}), at least "
        f"{asked:.1%} asked (gate.min_class_recall), and chance does not explain it (p = {p_value:.3g}, "
        f"{len(tested)} classes tested){others}."
    )


def _other_pictures(challenger: EvaluationReport, champion: EvaluationReport) -> str | None:
    if challenger.test_fingerprint != champion.test_fingerprint:
        return (
            f"Not comparable: the challenger was tested on other pictures ({challenger.test_fingerprint}) than the "
            f"champion ({champion.test_fingerprint}); evaluate the champion on the challenger's test pictures first."
        )
    return None


def _incomparable(challenger: EvaluationReport, champion: EvaluationReport, learned: Collection[str]) -> str | None:
    lost = sorted(set(champion.classes) - set(challenger.classes))
    if lost:
        return f"Not comparable: the challenger does not know {some_of(lost)}, which the champion does."
    if set(learned).issuperset(champion.predictions.column("sha256").to_pylist()):
        return f"Not comparable: the champion learned from all {champion.metrics.pictures} test pictures."
    return None


def _compared(comparison: Comparison, shared: Comparison | None, config: GateConfig) -> tuple[bool, str]:
    figures = _figures(comparison, shared)
    drop = -comparison.gain / comparison.pictures
    sure = comparison.p_value < config.significance
    if config.surely_better and not (sure and comparison.gain > 0):
        return False, f"Not surely better than the champion, as gate.surely_better asks: {figures}."
    if shared is not None and shared.gain < 0 and shared.p_value < config.significance:
        return False, f"Surely worse than the champion on the classes that both know: {figures}."
    if comparison.gain > 0:
        doubt = "" if sure else ", though so small a difference may be chance"
        return True, f"Better than the champion: {figures}{doubt}."
    if comparison.gain == 0:
        ours, theirs = comparison.challenger_log_loss or 0.0, comparison.champion_log_loss or 0.0
        losses = f"log loss {ours:.4f} against {theirs:.4f}"
        if ours < theirs - 1e-6:
            return True, f"As often right as the champion, with the lower log loss: {figures}, {losses}."
        if config.max_accuracy_drop == 0:
            return False, f"No better than the champion: {figures}, {losses}."
    if drop > config.max_accuracy_drop + 1e-9:
        return False, f"Worse than the champion: {figures}, a drop of at most {config.max_accuracy_drop:.1%} allowed."
    if sure:
        return False, f"Surely worse than the champion, though by little: {figures}."
    return True, f"Within the drop of {config.max_accuracy_drop:.1%} that is allowed: {figures}."


def _figures(comparison: Comparison, shared: Comparison | None) -> str:
    """Say what both did, on how many pictures, and which were left out or new to the champion."""
    accuracy, pictures = comparison.challenger_accuracy or 0.0, comparison.pictures
    text = (
        f"{_share_right(accuracy, pictures)}, the champion {comparison.champion_accuracy:.1%}; "
        f"{comparison.only_challenger_right} pictures are right only with the challenger, "
        f"{comparison.only_champion_right} only with the champion (p = {comparison.p_value:.3g})"
    )
    if comparison.learned:
        text += f"; {comparison.learned} more are left out, for the champion learned from them"
    if shared is not None:
        text += (
            f"; {pictures - shared.pictures} of the pictures show classes that the champion was never taught, and of "
            f"the other {shared.pictures} the challenger names {shared.challenger_accuracy:.1%} right, the champion "
            f"{shared.champion_accuracy:.1%} (p = {shared.p_value:.3g})"
        )
    return text


def _right(report: EvaluationReport) -> str:
    return _share_right(report.metrics.accuracy, report.metrics.pictures)


def _share_right(share: float, pictures: int) -> str:
    interval = wilson_interval(round(share * pictures), pictures)
    return (
        f"the challenger names {share:.1%} of {pictures} test pictures right "
        f"(95%: {interval.low:.1%}–{interval.high:.1%})"
    )
