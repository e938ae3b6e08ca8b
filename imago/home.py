"""Where Imago keeps what it must find again: the MLflow database, Bentos, deployments, predictions, reports."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from imago.errors import ConfigError
from imago.files import newest_first, replacing

ROOT = Path(__file__).resolve().parent.parent
_AT_WORK = 24 * 3600  # seconds
_DONE, _LOCK = ".done", ".lock"
_DEFAULTS = {"IMAGO_HOME": ROOT / ".imago", "IMAGO_REPORTS": ROOT / "reports"}


def home() -> Path:
    """Return the folder of everything Imago keeps: `IMAGO_HOME`, or `.imago` beside the code. It is made if absent.

    Raises ConfigError where it cannot be.
    """
    return _made("IMAGO_HOME")


def reports() -> Path:
    """Return the folder of generated reports: `IMAGO_REPORTS`, or `reports` beside the code, likewise."""
    return _made("IMAGO_REPORTS")


def place(variable: str) -> Path:
    """Return where the folder is that `IMAGO_HOME` or `IMAGO_REPORTS` names, there or not."""
    return Path(os.environ.get(variable) or _DEFAULTS[variable]).resolve()


def require_writable() -> None:
    """Raise ConfigError where a run's results could not be kept, before the work for them is done."""
    for variable in _DEFAULTS:
        folder = _made(variable)
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _unusable(folder, variable, error) from error


def write_report(name: str, text: str) -> Path:
    """Write a report in one step, so that no reader sees half of it and a full disk leaves the one before.

    A name such as `figures/moths.svg` has its folder made.
    """
    path = reports() / name
    _make(path.parent, "IMAGO_REPORTS")
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def place_for(kind: str, key: str, *, keep: int) -> Path:
    """Return the folder of work that may have to go on later, made if absent.

    Of its kind the newest are kept, and all that somebody may be at work in.
    """
    folder = home() / kind / key
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for old in newest_first(folder.parent.iterdir())[keep:]:
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _AT_WORK:
                shutil.rmtree(old, ignore_errors=True)
    return folder


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a folder of work, which is not done any more, for this process.

    Raises ConfigError where another is at work in it.
    """
    try:
        with FileLock(folder / _LOCK, blocking=False):
            (folder / _DONE).unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise ConfigError(
            f"The very same is under way in another process: wait for it (it is at work in {folder})."
        ) from error


def mark_done(folder: Path, run: str) -> None:
    """Say that a run has done the work in a folder, so that `clear_done` may remove it."""
    (folder / _DONE).write_text(run, encoding="utf-8")


def clear_done(kind: str, run: str) -> None:
    """Remove what this run has done of a kind, once what came of it is kept elsewhere, unless it is gone on with."""
    for mark in (home() / kind).glob(f"*/{_DONE}"):
        if _done_by(mark) == run:
            with suppress(Timeout), FileLock(mark.with_name(_LOCK), blocking=False):
                if _done_by(mark) == run:  # nobody has begun again meanwhile
                    shutil.rmtree(mark.parent, ignore_errors=True)


def _done_by(mark: Path) -> str | None:
    try:
        return mark.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _made(variable: str) -> Path:
    return _make(place(variable), variable)


def _make(folder: Path, variable: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, variable, error) from error
    return folder


def _unusable(folder: Path, variable: str, error: OSError) -> ConfigError:
    if folder.exists() and not folder.is_dir():
        return ConfigError(f"{folder} is a file: set {variable} to another folder.")
    return ConfigError(
        f"{folder} cannot be written to ({error.strerror}): give yourself the right, or set {variable} to another "
        "folder."
    )
