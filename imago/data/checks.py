"""All checks of a table of pictures, each with its severity: what it leads to."""

from pydantic import BaseModel, ConfigDict

from imago.config import DataConfig, Severity
from imago.data.class_checks import CLASS_CHECKS, version_shift
from imago.data.copy_checks import COPY_CHECKS, NEAR_COPY_CHECKS, exact_copies, near_copies
from imago.data.finding import Finding
from imago.data.near_duplicates import Look
from imago.data.picture_checks import PICTURE_CHECKS
from imago.data.statistics import PictureTable


class CheckResult(BaseModel):
    """What one check found, and what that leads to.

    `count` is pictures for a picture's defect, groups of pictures for copies and conflicts, classes for a class's,
    splits for a split's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    severity: Severity
    count: int
    pictures: list[str]
    groups: list[list[str]]
    agreements: list[float]  # of each group, where it is of copies: 1 for the same bytes
    copy_of: dict[str, str]  # of each copy that leaves, or would, the one that it leaves for
    classes: list[str]
    sentence: str
    quarantined: list[str]


def run_checks(
    table: PictureTable, config: DataConfig, look: Look, previous: PictureTable | None = None
) -> list[CheckResult]:
    """Run every check, in the order of the configuration; one that is off is not run, and says so.

    Classes and splits are judged by the pictures that the other checks let through. `look` gives a picture's pixels by
    its row, for the closer look at near-duplicates; `previous` is the table of an earlier version of the data.
    """
    severity: dict[str, Severity] = config.checks.model_dump()
    results: dict[str, CheckResult] = {}

    def wanted(name: str) -> bool:
        if severity[name] == "off":
            results[name] = _result(name, "off", Finding(0, "This check is off."))
        return severity[name] != "off"

    for name, check in PICTURE_CHECKS.items():
        if wanted(name):
            results[name] = _result(name, severity[name], check(table, config))
    exact = exact_copies(table)
    for name, copy_check in COPY_CHECKS.items():
        if wanted(name):
            results[name] = _result(name, severity[name], copy_check(exact))
    near = [name for name in NEAR_COPY_CHECKS if wanted(name)]
    alike = near_copies(table, look, turned=config.turned_copies) if near else []
    for name in near:
        results[name] = _result(name, severity[name], NEAR_COPY_CHECKS[name](alike))

    accepted = table.without({name for result in results.values() for name in result.quarantined})
    for name, class_check in CLASS_CHECKS.items():
        if wanted(name):
            results[name] = _result(name, severity[name], class_check(table, accepted, config))
    if wanted("version_shift"):
        results["version_shift"] = _result(
            "version_shift", severity["version_shift"], version_shift(accepted, previous)
        )
    return [results[name] for name in severity]


def _result(name: str, severity: Severity, finding: Finding) -> CheckResult:
    leaving = finding.pictures if finding.to_quarantine is None else finding.to_quarantine
    return CheckResult(
        id=name,
        severity=severity,
        count=finding.count,
        pictures=finding.pictures,
        groups=finding.groups,
        agreements=finding.agreements,
        copy_of=finding.copy_of,
        classes=finding.classes,
        sentence=finding.sentence,
        quarantined=leaving if severity == "quarantine" else [],
    )
