"""Where Imago keeps what it must find again: the MLflow database, Bentos, deployments, predictions, reports."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder of everything Imago keeps: `IMAGO_HOME`, or `.imago` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_HOME") or ROOT / ".imago"))


def reports() -> Path:
    """Return the folder of generated reports: `IMAGO_REPORTS`, or `reports` beside the code. It is made if absent."""
    return _made(Path(os.environ.get("IMAGO_REPORTS") or ROOT / "reports"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()
