"""Where Imago keeps what it must find again: the MLflow database, Bentos, deployments, predictions, reports."""

import os
import tempfile
from pathlib import Path
from uuid import uuid4

from imago.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder of everything Imago keeps: `IMAGO_HOME`, or `.imago` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_HOME") or ROOT / ".imago"))


def reports() -> Path:
    """Return the folder of generated reports: `IMAGO_REPORTS`, or `reports` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_REPORTS") or ROOT / "reports"))


def require_writable() -> None:
    """Raise ConfigError where a run's results could not be kept, before the work for them is done."""
    for variable, folder in (("IMAGO_HOME", home), ("IMAGO_REPORTS", reports)):
        try:
            with tempfile.TemporaryFile(dir=folder()):
                pass
        except OSError as error:
            place = error.filename or os.environ.get(variable)
            raise ConfigError(
                f"{place} cannot be written to ({error.strerror}): give yourself the right, or set {variable} to "
                "another folder."
            ) from error


def write_report(name: str, text: str) -> Path:
    """Write a report in one step, so that no reader sees half of it and a full disk leaves the one before."""
    path = reports() / name
    partial = path.with_name(f".{name}.{uuid4().hex[:8]}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()
