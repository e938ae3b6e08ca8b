"""Keeps libraries' remarks from the user for a while."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*loggers: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let these loggers say nothing below a level, and nobody warn."""
    known = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in known]
    try:
        for logger in known:
            logger.setLevel(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in zip(known, levels, strict=True):
            logger.setLevel(before)
