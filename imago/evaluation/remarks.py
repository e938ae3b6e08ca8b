"""What a reader should know of an evaluation besides the accuracy, in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass

from imago.config import GateConfig
from imago.errors import some_of
from imago.evaluation.metrics import ClassMetrics, Interval, Metrics
from imago.evaluation.rejection import Strangers
from imago.evaluation.report import Findings

_TRUSTED, _UNTRUSTED = 0.05, GateConfig().max_calibration_error  # of calibration errors
_HURT = 0.10
_MANY_WITHHELD = 0.20
_ENOUGH_STRANGERS, _TOLD_APART = 0.5, 0.8

_CORRUPTIONS = {
    "blur": "blur",
    "noise": "noise",
    "jpeg": "JPEG compression",
    "brightness": "wrong exposure",
    "contrast": "loss of contrast",
    "colour_cast": "colour cast",
    "crop": "cropping",
}


def percent(share: float | None) -> str:
    """Return a share as a person would say it: `93%`, `99.4%` near the ends, `–` for none; `100%` is all of it."""
    if share is None:
        return "–"
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{min(max(share, 0.001), 0.999):.1%}"
    return f"{share:.0%}"


def magnitude(count: int) -> str:
    """Return a count as a person would say it: `940`, `5.4 thousand`, `1.6 million`, `4.5 billion`."""
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if count >= unit:
            return f"{count / unit:.{0 if count >= 100 * unit else 1}f} {name}"
    return str(count)


def interval(found: Interval | None) -> str:
    """Return a range of shares as a person would say it: `91%–95%`; nothing for none."""
    return f"{percent(found.low)}–{percent(found.high)}" if found else ""


def around(found: Interval | None) -> str:
    """Return a range to stand after a figure's name: ` (91%–95%)`; nothing for none."""
    return f" ({interval(found)})" if found else ""


def readable(label: str) -> str:
    """Return the name of a class as a person would write it."""
    return label.replace("_", " ")


def corruption(name: str) -> str:
    """Return what a corruption does to a picture, as a person would say it."""
    return _CORRUPTIONS[name]


def degree(strength: int) -> str:
    """Return a strength from 1 to 3 as a word."""
    return ("slight", "middling", "strong")[strength - 1]


@dataclass(frozen=True)
class Remark:
    """Something to know, and whether it is good news."""

    good: bool
    text: str


@dataclass(frozen=True)
class ClassRow:
    """A class with its commonest confusion."""

    metrics: ClassMetrics
    taken_for: str | None
    times: int


def class_rows(metrics: Metrics) -> list[ClassRow]:
    """Return the classes that the test pictures show, the weakest first."""
    rows = []
    for index, entry in enumerate(metrics.per_class):
        if not entry.support:
            continue
        others = [(times, label) for label, times in zip(metrics.classes, metrics.confusion[index], strict=True)]
        others[index] = (0, entry.label)
        times, label = max(others, key=lambda pair: pair[0])
        rows.append(ClassRow(entry, label if times else None, times))
    return sorted(rows, key=lambda row: (row.metrics.recall or 0.0, row.metrics.f1 or 0.0, row.metrics.label))


def weak_classes(findings: Findings) -> frozenset[str]:
    """Return the classes of which fewer are right than chance explains, the number of slices allowed for."""
    return frozenset(entry.value for entry in findings.slices if entry.weak and entry.by == "class")


def remarks(findings: Findings) -> list[Remark]:
    """Return what is to be known, bad news first."""
    metrics = findings.metrics
    found = [_on_confidence(metrics), *_on_robustness(findings)]
    if metrics.accuracy <= metrics.chance < 1:  # what says one thing of all pictures is modest, and bears worse ones
        found = [_on_chance(metrics), *(remark for remark in found if not remark.good)]
    found += [
        *_on_training(findings.validation),
        *_on_classes(findings),
        *_on_slices(findings),
    ]
    if findings.rejected:
        share = findings.rejected / findings.metrics.pictures
        text = f"It withholds {findings.rejected} answers ({percent(share)}) as too unsure."
        found.append(Remark(share <= _MANY_WITHHELD, text))
    if findings.rejection and findings.rejection.strangers:
        found.append(_on_strangers(findings.rejection.strangers))
    return sorted(found, key=lambda remark: remark.good)


def _on_chance(metrics: Metrics) -> Remark:
    text = f"It is no better than always naming the commonest class, which would reach {percent(metrics.chance)}."
    return Remark(False, text)


def _on_strangers(strangers: Strangers) -> Remark:
    text = (
        f"Shown what is none of its classes ({strangers.what}), it withholds {percent(strangers.withheld_share)} of "
        f"its answers, and is less sure than of its own in {percent(strangers.auroc)} of all pairs."
    )
    good = strangers.withheld_share >= _ENOUGH_STRANGERS and strangers.auroc >= _TOLD_APART
    if strangers.are_easy:
        text += " Drawings are easily told from photographs: name pictures of your own as evaluation.outside."
    return Remark(good and not strangers.are_easy, text)


def _on_training(validation: Mapping[str, float]) -> list[Remark]:
    head, best = validation.get("head_val_accuracy"), validation.get("val_accuracy")
    if head is None or best is None:
        return []
    if validation.get("best_epoch") == 0:
        text = f"It is the head on frozen features ({percent(head)} on validation)"
        tuned = (
            ", and nothing was fine-tuned."
            if validation.get("epochs") == 0
            else ": no epoch of fine-tuning did better."
        )
        return [Remark(True, text + tuned)]
    text = f"Fine-tuning took it from {percent(head)} on validation, the head on frozen features, to {percent(best)}."
    return [Remark(True, text)]


def _on_confidence(metrics: Metrics) -> Remark:
    claimed, true = percent(metrics.mean_confidence), percent(metrics.accuracy)
    error, around = metrics.expected_calibration_error, metrics.expected_calibration_error_interval
    points = f"{100 * error:.1f} points" + (f" ({100 * around.low:.1f}–{100 * around.high:.1f})" if around else "")
    if error <= _TRUSTED:
        return Remark(True, f"Its confidence can be believed: it claims {claimed} on average and is off by {points}.")
    text = f"Its confidence is off by {points}: it claims {claimed} on average, and {true} come true."
    if around and around.low <= _TRUSTED:
        doubt = "may be chance" if not around.low else f"may be less than {percent(_TRUSTED)} in truth"
        return Remark(error <= _UNTRUSTED, f"{text} That {doubt}, with so few pictures.")
    how = "sure" if metrics.mean_confidence > metrics.accuracy else "modest"
    return Remark(False, f"{text} It is too {how}.")


def _on_classes(findings: Findings) -> list[Remark]:
    found = []
    if findings.unknown_classes:
        names = some_of([readable(label) for label in findings.unknown_classes])
        found.append(Remark(False, f"The test pictures show classes that it was never taught: {names}."))
    if untested := [entry.label for entry in findings.metrics.per_class if not entry.support]:
        them = "it" if len(untested) == 1 else "them"
        names = some_of([readable(label) for label in untested])
        text = f"Nobody knows how it does on {names}: no test picture shows {them}."
        found.append(Remark(False, text))
    rows = [row for row in class_rows(findings.metrics) if row.metrics.label not in findings.unknown_classes]
    if not rows:
        return found
    weak = [row for row in rows if row.metrics.label in weak_classes(findings)]
    lowest = rows[0].metrics.recall or 0.0
    if weak:
        more = len(weak) - 1
        others = f"; {more} more class{'es are' if more > 1 else ' is'} weak, too" if more else ""
        found.append(Remark(False, f"Weak class: {_counts(weak[0])}{_taken(weak[0])}{others}."))
    elif lowest < findings.metrics.accuracy - _HURT:
        text = f"No class is surely weaker than the rest. The lowest is {_counts(rows[0])}{_taken(rows[0])}"
        found.append(Remark(True, f"{text}: so few pictures prove nothing."))
    elif lowest < 1:
        found.append(Remark(True, f"No class is left behind: the weakest is {_counts(rows[0])}."))
    else:
        found.append(Remark(True, "No class is left behind: all of every class are right."))
    return found


def _counts(row: ClassRow) -> str:
    support = row.metrics.support
    return f"{readable(row.metrics.label)}, {round((row.metrics.recall or 0.0) * support)} of {support} right"


def _taken(row: ClassRow) -> str:
    return f", mostly taken for {readable(row.taken_for)} ({row.times})" if row.taken_for else ""


def _on_slices(findings: Findings) -> list[Remark]:
    weak = [entry for entry in findings.slices if entry.weak and entry.by != "class"]
    return [
        Remark(False, f"Weak where {entry.by} is “{entry.value}”: {percent(entry.accuracy)} of {entry.count} right.")
        for entry in weak[:2]
    ]


def _on_robustness(findings: Findings) -> list[Remark]:
    if not findings.robustness:
        return []
    hurt = [
        result
        for result in findings.robustness
        if result.drop > _HURT and result.hurt is not False  # None: an earlier version did not test it
    ]
    worst = max(hurt or findings.robustness, key=lambda result: result.drop)
    name = f"{corruption(worst.corruption)} ({degree(worst.strength)})"
    change = f"from {percent(worst.clean_accuracy)} to {percent(worst.accuracy)}"
    if hurt:
        return [Remark(False, f"Most hurt by {name}: {change}.")]
    if worst.drop <= 0:
        text = "It bears worse pictures: no blur, noise, crop or change of light that was tried costs it anything."
        return [Remark(True, text)]
    if worst.drop > _HURT:
        text = f"Of what makes pictures worse, {name} costs it most, {change}"
        return [Remark(True, f"{text}; that may be chance with {worst.count} pictures.")]
    return [Remark(True, f"It bears worse pictures: what costs it most is {name}, {change}.")]
