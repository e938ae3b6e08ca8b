"""Every picture decoded and measured once: the table that all checks read."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from imago.data.dataset import ImageDataset
from imago.data.features import FEATURES, features_of, shrunk
from imago.data.near_duplicates import outline
from imago.data.transforms import MAX_PIXELS, UnreadablePicture, decode_opened, open_picture

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
    "outline": "object",
    "error": "object",  # why it cannot be read: a code of UnreadablePicture, or "missing"
    "error_message": "object",
}

_CHUNK = 1024  # pictures
_LARGE = 100_000  # bytes of a picture, below which threads wait for each other longer than they decode


@dataclass(frozen=True)
class PictureTable:
    """One row a picture of a data set, in its order; a picture that cannot be read has an `error` and no measures."""

    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def readable(self) -> pd.DataFrame:
        """The rows of the pictures that can be decoded."""
        return self.frame[self.frame["error"].isna()]

    def without(self, ids: Collection[str]) -> "PictureTable":
        """Return the table without the pictures of these ids."""
        return PictureTable(self.frame[~self.frame["id"].isin(list(ids))].reset_index(drop=True))


def compute_statistics(dataset: ImageDataset, *, max_pixels: int = MAX_PIXELS) -> PictureTable:
    """Decode each picture, whole, and measure it; a picture of more than `max_pixels` is not decoded."""

    def measure(index: int) -> dict[str, Any]:
        return measure_picture(dataset.image(index), max_pixels=max_pixels)

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    some = [len(dataset.image(index)) for index in range(0, len(dataset), len(dataset) // 16 + 1)]
    with ThreadPoolExecutor(os.cpu_count() if sum(some) > _LARGE * len(some) else 1) as pool:
        for start in range(0, len(dataset), _CHUNK):
            for row in pool.map(measure, range(start, min(start + _CHUNK, len(dataset)))):
                for name, values in columns.items():
                    values.append(row.get(name))
            dataset.release()
    frame = pd.DataFrame(columns)
    frame["id"], frame["label"] = dataset.ids, dataset.labels
    frame["split"], frame["sha256"] = dataset.splits, dataset.digests
    frame["extension"] = [PurePosixPath(name).suffix.lower() for name in dataset.ids]
    return PictureTable(as_columns(frame))


def as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with the table's columns and their types, and None for a text that is missing."""
    frame = frame[list(COLUMNS)].astype(COLUMNS)
    texts = [name for name, kind in COLUMNS.items() if kind == "object"]
    frame[texts] = frame[texts].where(frame[texts].notna(), None)
    return frame


def measure_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Measure one encoded picture: the columns of the table but those that the data set gives."""
    row: dict[str, Any] = {"bytes": len(data), "width": 0, "height": 0}
    if not data:
        return row | {"error": "missing", "error_message": "its file is missing, empty or too large to be read"}
    try:
        header = open_picture(data, max_pixels=max_pixels)
        row |= {"format": _format(header.format), "mode": header.mode}
        picture = decode_opened(header, data)
    except UnreadablePicture as error:
        return row | {"error": error.code, "error_message": str(error)}
    height, width = picture.shape[:2]
    image = shrunk(picture)
    luma = image.convert("L")
    return row | {
        "width": width,
        "height": height,
        "aspect": width / height,
        **features_of(image, luma),
        "outline": outline(luma),
    }


def _format(name: str | None) -> str | None:
    return "JPEG" if name == "MPO" else name
