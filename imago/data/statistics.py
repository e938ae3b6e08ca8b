"""Every picture decoded and measured once: the table that all checks read."""

import posixpath
import sys
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from imago.data.dataset import ImageDataset
from imago.data.features import FEATURES, features_of, luma_of, shrunk
from imago.data.near_duplicates import OUTLINE_SIDE, outline
from imago.data.neighbours import Outlines
from imago.data.transforms import MAX_PIXELS, UnreadablePicture, read_picture

COLUMNS: dict[str, str] = {
    "id": "object",
    "label": "object",
    "split": "object",
    "sha256": "object",
    "bytes": "int64",
    "format": "object",  # PIL's name of it, such as JPEG
    "extension": "object",  # lower case, with its dot
    "width": "int64",  # upright, in pixels
    "height": "int64",
    "mode": "object",
    "aspect": "float64",  # width / height
    **dict.fromkeys(FEATURES, "float64"),
    "error": "object",  # why it cannot be read: a code of UnreadablePicture, or "missing"
    "error_message": "object",
}

MEASURED = [name for name in COLUMNS if name not in {"id", "label", "split", "sha256", "extension"}]

_CHUNK = 1024  # pictures
_LARGE = 100_000  # bytes of a picture, below which threads wait for each other longer than they decode


@dataclass(frozen=True)
class PictureTable:
    """One row a picture of a data set, in its order; a picture that cannot be read has an `error` and no measures.

    `outlines` (N, 28, 28) are the pictures' own, zero where one cannot be read; absent in what is kept for later.
    """

    frame: pd.DataFrame
    outlines: Outlines | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def readable(self) -> pd.DataFrame:
        """The rows of the pictures that can be decoded."""
        return self.frame[self.frame["error"].isna()]

    def without(self, ids: Collection[str]) -> "PictureTable":
        """Return the table without the pictures of these ids."""
        if not ids:
            return self
        stays = ~self.frame["id"].isin(list(ids)).to_numpy()
        outlines = None if self.outlines is None else self.outlines[stays]
        return PictureTable(self.frame[stays].reset_index(drop=True), outlines)


def compute_statistics(dataset: ImageDataset, *, max_pixels: int = MAX_PIXELS) -> PictureTable:
    """Decode each picture, whole, and measure it; a picture of more than `max_pixels` is not decoded."""

    outlines = np.zeros((len(dataset), OUTLINE_SIDE, OUTLINE_SIDE), dtype=np.uint8)

    def measure(index: int) -> dict[str, Any]:
        row, seen = measure_picture(dataset.image(index), max_pixels=max_pixels)
        if seen is not None:
            outlines[index] = seen
        return row

    parts = [pd.DataFrame({name: [] for name in MEASURED})]
    some = [len(dataset.image(index)) for index in range(0, len(dataset), len(dataset) // 16 + 1)]
    with ThreadPoolExecutor() as pool:
        each: Callable[..., Iterable[dict[str, Any]]] = pool.map if sum(some) > _LARGE * len(some) else map
        for start in range(0, len(dataset), _CHUNK):
            rows = list(each(measure, range(start, min(start + _CHUNK, len(dataset)))))
            parts.append(pd.DataFrame.from_records(rows, columns=MEASURED))
            dataset.release()
    frame = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    frame["id"], frame["label"] = dataset.ids, dataset.labels
    frame["split"], frame["sha256"] = dataset.splits, dataset.digests
    frame["extension"] = [sys.intern(posixpath.splitext(name)[1].lower()) for name in dataset.ids]
    return PictureTable(as_columns(frame), outlines)


def as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with the table's columns and their types, and None for a text that is missing."""
    frame = frame[list(COLUMNS)].astype(COLUMNS)
    texts = [name for name, kind in COLUMNS.items() if kind == "object"]
    frame[texts] = frame[texts].where(frame[texts].notna(), None)
    return frame


def measure_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[dict[str, Any], Outlines | None]:
    """Measure one encoded picture: the columns of the table but those that the data set gives, and its outline."""
    row: dict[str, Any] = {"bytes": len(data), "width": 0, "height": 0}
    if not data:
        why = "its file is missing, empty, too large, locked, or outside the source"
        return row | {"error": "missing", "error_message": why}, None
    try:
        decoded = read_picture(data, max_pixels=max_pixels)
    except UnreadablePicture as error:
        return row | {"error": error.code, "error_message": str(error)}, None
    height, width = decoded.pixels.shape[:2]
    picture = shrunk(decoded.pixels)
    luma = luma_of(picture)
    measured = {
        "format": "JPEG" if decoded.format == "MPO" else decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "aspect": width / height,
        **features_of(picture, luma),
    }
    return row | measured, outline(luma.levels)
