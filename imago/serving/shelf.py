"""Where the reports of each deployed version lie for its endpoint to show."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from imago import home
from imago.files import newest_first, replacing
from imago.serving import deployment
from imago.serving.reports import HISTORY, REPORTS

KEPT = 5  # versions, the newest, beside the one that serves and the one before it


def of(name: str, version: str) -> Path:
    """Return the folder of a version's reports, there or not."""
    return home.home() / "shelves" / deployment.checked(name.lower()) / deployment.checked(version.lower())


def fill(name: str, version: str, reports: Mapping[str, str]) -> None:
    """Put a version's reports, by the names of their files, where its endpoint finds them, and its history beside.

    Those of old versions go: what is rolled back to later is given its own anew.
    """
    shelf = of(name, version)
    for file, content in reports.items():
        _put(shelf, file, content)
    with replacing(shelf / HISTORY) as link:
        link.symlink_to(deployment.folder() / f"{name}.json")
    _prune(name, version)


def renew(name: str, version: str, file: str, content: str) -> None:
    """Put a later report of a version beside its others, where it has any."""
    shelf = of(name, version)
    if shelf.is_dir():
        _put(shelf, file, content)


def _put(shelf: Path, file: str, content: str) -> None:
    assert file in REPORTS, file
    with replacing(shelf / file) as partial:
        partial.write_text(content, encoding="utf-8")


def _prune(name: str, version: str) -> None:
    state = deployment.read(name)
    needed = {version, *(served.model["version"] for served in (state.current, state.previous) if served)}
    spared = {of(name, each) for each in needed}
    for shelf in newest_first(of(name, version).parent.iterdir())[KEPT:]:
        if shelf not in spared:
            shutil.rmtree(shelf, ignore_errors=True)  # another deployment may be at it, too
