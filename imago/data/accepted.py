"""The version of a source's data that was last accepted for training, which the next one is compared with."""

import hashlib
from pathlib import Path

import pandas as pd
import pyarrow as pa

from imago.config import DataConfig
from imago.data.statistics import PictureTable, as_columns
from imago.files import replacing
from imago.home import home


def remember(config: DataConfig, table: PictureTable) -> None:
    """Keep the table of the accepted pictures of a source, in place of the one before."""
    with replacing(_path(config)) as partial:
        table.frame.to_parquet(partial)


def last_accepted(config: DataConfig) -> PictureTable | None:
    """Return the table that was kept of this source and this part of it, without outlines.

    None where there is none that can be read today.
    """
    try:
        return PictureTable(as_columns(pd.read_parquet(_path(config))))
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def _path(config: DataConfig) -> Path:
    source = config.source
    place = str(Path(source).absolute()) if source and Path(source).exists() else str(source)
    part = (place, config.classes, config.subset, config.limit_per_class)
    return home() / "accepted" / f"{hashlib.sha256(repr(part).encode()).hexdigest()[:16]}.parquet"
