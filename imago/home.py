"""Where Imago keeps what it must find again: the MLflow database, Bentos, deployments, predictions, reports."""

import os
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder of everything Imago keeps: `IMAGO_HOME`, or `.imago` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_HOME") or ROOT / ".imago"))


def reports() -> Path:
    """Return the folder of generated reports: `IMAGO_REPORTS`, or `reports` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_REPORTS") or ROOT / "reports"))


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
