"""What a person is told of a shadow: the verdict first, then how it differs from the version that serves."""

from datetime import datetime

from imago.monitoring.shadow_comparison import ShadowComparison
from imago.serving.deployment import ShadowStatus


def tell(found: ShadowComparison, champion: str, challenger: str) -> list[str]:
    """Return the lines of a comparison of two versions of a model."""
    lines = [_verdict(found, champion, challenger)]
    if found.verdict == "fails" and found.feedback:
        lines.append(f"Of those that it answered, {_known(found, champion)}.")
    if found.agreement is not None and found.agreement_interval is not None:
        low, high = found.agreement_interval.low, found.agreement_interval.high
        lines.append(
            f"Both say the same of {found.agreement:.1%} of {found.answered:,} pictures ({low:.1%}–{high:.1%})."
        )
        lines.extend(
            f"  Of {one.pictures:,} that version {champion} calls {one.label}, it calls {one.differing:,} otherwise, "
            f"{one.instead_pictures:,} of them {one.instead}"
            for one in found.classes
        )
        lines.append(
            f"Not sure enough: version {challenger} of {found.shadow_rejected / found.answered:.1%}, "
            f"version {champion} of {found.rejected / found.answered:.1%}."
        )
    if found.seconds is not None and found.shadow_seconds is not None:
        lines.append(
            f"Median of a picture, on one core: version {challenger} {1000 * found.shadow_seconds:.1f} ms, "
            f"version {champion} {1000 * found.seconds:.1f} ms."
        )
    if found.failures and found.verdict != "fails":
        lines.append(f"No answer to {_failures(found)}{_since(found)}.")
    return lines


def tell_status(shadow: ShadowStatus) -> str:
    """Return a line on what a shadow does at this moment."""
    version = f"version {shadow.model['version']}"
    if shadow.running:
        return f"In its shadow since {shadow.since}: {version}, asked {shadow.share:.0%} of the same, heard by nobody"
    return (
        f"In its shadow, and not running: {version} ({shadow.reason}); `python run.py deployment shadow --stop` ends it"
    )


def _verdict(found: ShadowComparison, champion: str, challenger: str) -> str:
    known = _known(found, champion)
    match found.verdict:
        case "nothing_mirrored":
            return f"Version {challenger} has been asked nothing yet that version {champion} was asked."
        case "fails":
            return f"Version {challenger} does not do: it gave no answer to {_failures(found)}{_since(found)}."
        case "shadow_better":
            return f"Version {challenger} is better than version {champion}: {known}."
        case "champion_better":
            return f"Version {challenger} is worse than version {champion}: {known}."
    if not found.feedback:
        return f"Undecided between versions {challenger} and {champion}: nobody has told a true label (`/feedback`)."
    return f"Undecided between versions {challenger} and {champion}: {known}."


def _known(found: ShadowComparison, champion: str) -> str:
    right = round((found.accuracy or 0) * found.feedback), round((found.shadow_accuracy or 0) * found.feedback)
    return (
        f"of {found.feedback:,} pictures whose true label is known it names {right[1]:,} right, "
        f"version {champion} {right[0]:,} (p = {found.p_value:.2g})"
    )


def _failures(found: ShadowComparison) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.failures.items())
    return f"{found.mirrored - found.answered:,} of {found.mirrored:,} pictures ({reasons})"


def _since(found: ShadowComparison) -> str:
    """Say how it is now, where it was asked more than what is judged."""
    if found.last_failure is None or found.recent == found.mirrored:
        return ""
    when = f"{datetime.fromisoformat(found.last_failure):%Y-%m-%d %H:%M} UTC"
    return f", the last at {when}; to {found.recent_failures:,} of the last {found.recent:,}"
