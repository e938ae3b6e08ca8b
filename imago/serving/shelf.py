"""Where the reports of each deployed version lie for its endpoint to show."""

from collections.abc import Mapping
from pathlib import Path

from imago import home
from imago.files import replacing
from imago.serving import deployment
from imago.serving.reports import HISTORY, REPORTS


def of(name: str, version: str) -> Path:
    """Return the folder of a version's reports, there or not."""
    return home.home() / "shelves" / deployment.checked(name.lower()) / deployment.checked(version.lower())


def fill(name: str, version: str, reports: Mapping[str, str]) -> None:
    """Put a version's reports, by the names of their files, where its endpoint finds them, and its history beside."""
    shelf = of(name, version)
    for file, content in reports.items():
        _put(shelf, file, content)
    with replacing(shelf / HISTORY) as link:
        link.symlink_to(deployment.folder() / f"{name}.json")


def renew(name: str, version: str, file: str, content: str) -> None:
    """Put a later report of a version beside its others, where it has any."""
    shelf = of(name, version)
    if shelf.is_dir():
        _put(shelf, file, content)


def _put(shelf: Path, file: str, content: str) -> None:
    assert file in REPORTS, file
    with replacing(shelf / file) as partial:
        partial.write_text(content, encoding="utf-8")
