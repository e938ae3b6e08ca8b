"""Whether the data may be trained on, and which pictures may not."""

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from imago.config import DataConfig
from imago.data.checks import CheckResult, run_checks
from imago.data.dataset import SPLITS, ImageDataset
from imago.data.expectations import expect, failures
from imago.data.finding import counted
from imago.data.page import render_page
from imago.data.statistics import PictureTable
from imago.data.transforms import RGB, decode
from imago.errors import DataRefused, ImagoError

_LOOKS = 1024  # pictures that are read before those before are let go of


class ValidationResult(BaseModel):
    """The verdict on a data set, why, and what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal["accepted", "refused"]
    reasons: list[str]  # of a refusal
    found: int
    accepted: int
    quarantined: dict[str, str]  # why, by the picture's id
    checks: list[CheckResult]
    expectations: dict[str, Any]  # Great Expectations' own result, on the accepted pictures
    fingerprint: str  # of the accepted pictures
    origin: str
    page: str  # HTML

    @classmethod
    def of_nothing(cls, reason: str) -> "ValidationResult":
        """Return the verdict on a source in which there is no labelled picture."""
        return cls(
            verdict="refused",
            reasons=[reason],
            found=0,
            accepted=0,
            quarantined={},
            checks=[],
            expectations={},
            fingerprint="",
            origin=reason,
            page="",
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `data check --json` prints, but the report's path."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "pictures": {
                "found": self.found,
                "accepted": self.accepted,
                "quarantined": len(self.quarantined),
            },
            "quarantined": self.quarantined,
            "checks": [check.model_dump() for check in self.checks],
            "expectations": {
                severity: failures(self.expectations, severity) if self.expectations else []
                for severity in ("critical", "warning", "info")
            },
            "fingerprint": self.fingerprint,
            "origin": self.origin,
        }

    def raise_if_refused(self) -> None:
        """Raise DataRefused, in one line, where the data must not be trained on."""
        if self.verdict == "accepted":
            return
        more = len(self.reasons) - 1
        rest = f" ({counted(more, 'more reason', 'more reasons')} in the report.)" if more else ""
        raise DataRefused(f"The data is refused: {self.reasons[0]}{rest}")


def validate(
    dataset: ImageDataset, table: PictureTable, config: DataConfig, previous: PictureTable | None = None
) -> ValidationResult:
    """Run every check, quarantine what they ask for, and hold the rest against the suite of expectations.

    `table` is `compute_statistics(dataset)`; `previous` that of an earlier version of the data. Raises ImagoError where
    the table is not of this data set, ConfigError where the checks or the suite cannot be used.
    """
    if list(table.frame["id"]) != dataset.ids or list(table.frame["sha256"]) != dataset.digests:
        raise ImagoError("These statistics are not of this data set: compute them again.")
    looks = itertools.count(1)

    def look(row: int) -> RGB:
        if next(looks) % _LOOKS == 0:
            dataset.release()
        return decode(dataset.image(row), max_pixels=config.max_pixels)

    checks = run_checks(table, config, look, previous)
    dataset.release()
    table = PictureTable(table.frame)  # the outlines are no longer needed
    quarantined = _quarantined(checks, table)
    accepted = dataset.without(quarantined)
    expectations = expect(table.without(quarantined), config) if len(accepted) else {}
    reasons = _reasons(checks, accepted, expectations)
    if len(accepted) and len(quarantined) > config.max_quarantined * len(dataset):
        reasons.insert(0, _too_many(quarantined, len(dataset)))
    result = ValidationResult(
        verdict="refused" if reasons else "accepted",
        reasons=reasons,
        found=len(dataset),
        accepted=len(accepted),
        quarantined=quarantined,
        checks=checks,
        expectations=expectations,
        fingerprint=accepted.fingerprint,
        origin=dataset.origin,
        page="",
    )
    return result.model_copy(
        update={"page": render_page(result, dataset, accepted, table, max_pixels=config.max_pixels)}
    )


def _quarantined(checks: list[CheckResult], table: PictureTable) -> dict[str, str]:
    names = {name for check in checks for name in [*check.quarantined, *check.copy_of.values()]}
    rows = {row["id"]: row for row in table.frame[table.frame["id"].isin(names)].to_dict("records")}
    reasons: dict[str, str] = {}
    for check in checks:
        agreements = {
            name: value for group, value in zip(check.groups, check.agreements, strict=True) for name in group
        }
        for name in check.quarantined:
            copied = rows.get(check.copy_of.get(name, ""))
            why = _why(check, rows[name]) if copied is None else _copied(rows[name], copied, agreements[name])
            reasons.setdefault(name, f"{check.id}: {why}")
    return dict(sorted(reasons.items()))


def _copied(row: Mapping[Hashable, Any], other: Mapping[Hashable, Any], agreement: float) -> str:
    named = f", there called '{other['label']}'" if other["label"] != row["label"] else ""
    nearly = f", nearly (they agree to {agreement:.2f} of 1)" if agreement < 1 else ""
    return f"it is '{other['id']}' again{named}{nearly}"


def _why(check: CheckResult, row: Mapping[Hashable, Any]) -> str:
    if row["error"] is not None:
        return str(row["error_message"])
    if check.classes:
        return f"it is of class '{row['label']}'"
    return f"{row['width']}×{row['height']} pixels, brightness {row['brightness']:.2f}"


def _reasons(checks: list[CheckResult], accepted: ImageDataset, expectations: dict[str, Any]) -> list[str]:
    if not len(accepted):
        return ["no picture is left."]
    reasons = [f"the {split} split is empty." for split in SPLITS if split not in accepted.splits]
    if len(accepted.classes) < 2:
        reasons.append(f"there is one class only, '{accepted.classes[0]}'; a classifier needs two.")
    reasons += [_lower(check.sentence) for check in checks if check.severity == "refuse" and check.count]
    if expectations:
        reasons += [f"{failure}." for failure in failures(expectations, "critical")]
    return reasons


def _too_many(quarantined: dict[str, str], found: int) -> str:
    causes = Counter(why.partition(":")[0] for why in quarantined.values())
    cause, count = causes.most_common(1)[0]
    return (
        f"{len(quarantined):,} of {found:,} pictures would be left out, {count:,} of them by {cause}: mend the source, "
        f"tell only with data.checks.{cause}=warn, or allow it with data.max_quarantined."
    )


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
