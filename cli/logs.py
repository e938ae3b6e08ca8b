"""What a run shows while it goes on: its steps, in plain lines on stderr; the libraries' chatter under `--debug`."""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator

import click

_STEP = re.compile(
    r"Step `?(?P<step>\w+)`? has (?P<what>started|finished in|failed)\.?(?P<rest>.*)|"
    r"Using cached version of step `?(?P<cached>\w+)`?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOUD = (
    "zenml",
    "mlflow",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "bentoml",
    "alembic",
    "urllib3",
    "great_expectations",
    "evidently",
    "httpx",
    "timm",
    "datasets",
    "fsspec",
    "matplotlib",
    "root",
)


class _Steps(logging.Handler):
    """Turns ZenML's own log records into one short line a step, and shows Imago's as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("imago"):
            click.echo(f"  {record.getMessage()}", err=True)
            return
        match = _STEP.match(_COLOUR.sub("", record.getMessage()))  # a container's lines come coloured
        if match is None:
            return
        if match["cached"]:
            click.echo(f"  {match['cached']}: cached", err=True)
        elif match["what"] == "started":
            click.echo(f"  {match['step']} …", err=True)
        elif match["what"] == "finished in":
            click.echo(f"  {match['step']}: done in {match['rest'].strip(' `.')}", err=True)


def configure(debug: bool) -> None:
    """Leave the libraries' logging as it is under `--debug`; else show the steps only."""
    if debug:
        return
    warnings.filterwarnings("ignore")
    for name in _LOUD:
        logger = logging.getLogger(None if name == "root" else name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
    root = logging.getLogger()
    root.addHandler(_Steps(logging.INFO))
    for name in ("zenml", "imago"):
        logging.getLogger(name).setLevel(logging.INFO)
    for name in _LOUD:
        if name not in {"zenml", "root"}:
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send whatever this process and its children write to standard output to standard error for a while."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
