"""Defects of single pictures."""

from collections.abc import Callable

import pandas as pd

from imago.config import DataConfig
from imago.data.finding import Finding, counted, nothing, some
from imago.data.statistics import PictureTable

EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

BLANK_CONTRAST = 0.02
DARK_BRIGHTNESS = 0.08
BRIGHT_BRIGHTNESS = 0.95
DRAWN_CONTRAST = 0.15
"""Of what is drawn in white on black, which is not underexposed."""
BLURRED_SHARPNESS = 0.012
BLURRED_SHARPNESS_BY_CONTRAST = 0.08
"""Of 4,400 published photographs of butterflies the least sharp have 0.026, and 0.11 in parts of their contrast."""
ODD_ASPECT = 3.0


def undecodable(table: PictureTable, _: DataConfig) -> Finding:
    frame = table.frame
    rows = frame[frame["error"].notna() & (frame["error"] != "too_many_pixels")]
    return _of(rows, "cannot be decoded", "every picture can be decoded")


def too_many_pixels(table: PictureTable, config: DataConfig) -> Finding:
    rows = table.frame[table.frame["error"] == "too_many_pixels"]
    limit = f"more than {config.max_pixels:,} pixels"
    return _of(rows, f"with {limit}", f"no picture has {limit}")


def extension_mismatch(table: PictureTable, _: DataConfig) -> Finding:
    frame = table.readable
    said = frame["extension"].map(EXTENSIONS)
    rows = frame[said.notna() & (said != frame["format"])]
    return _of(rows, "of another format than the file's name says", "every file's name says its format")


def too_small(table: PictureTable, config: DataConfig) -> Finding:
    frame = table.readable
    rows = frame[frame[["width", "height"]].min(axis=1) < config.min_side]
    limit = f"{config.min_side} pixels"
    return _of(rows, f"with a side of fewer than {limit}", f"every picture's sides have at least {limit}")


def near_blank(table: PictureTable, _: DataConfig) -> Finding:
    rows = table.readable[table.readable["contrast"] < BLANK_CONTRAST]
    return _of(rows, "nearly blank", "no picture is nearly blank")


def dark(table: PictureTable, _: DataConfig) -> Finding:
    frame = table.readable
    rows = frame[(frame["brightness"] < DARK_BRIGHTNESS) & (frame["contrast"] < DRAWN_CONTRAST)]
    return _of(rows, "nearly black", "no picture is nearly black")


def bright(table: PictureTable, _: DataConfig) -> Finding:
    rows = table.readable[table.readable["brightness"] > BRIGHT_BRIGHTNESS]
    return _of(rows, "nearly white", "no picture is nearly white")


def blurred(table: PictureTable, _: DataConfig) -> Finding:
    frame = table.readable[table.readable["contrast"] >= BLANK_CONTRAST]
    enough = (BLURRED_SHARPNESS_BY_CONTRAST * frame["contrast"]).clip(lower=BLURRED_SHARPNESS)
    rows = frame[frame["sharpness"] < enough]
    return _of(rows, "without a sharp edge", "no picture is blurred")


def odd_aspect(table: PictureTable, _: DataConfig) -> Finding:
    aspect = table.readable["aspect"]
    rows = table.readable[(aspect > ODD_ASPECT) | (aspect < 1 / ODD_ASPECT)]
    shape = f"more than {ODD_ASPECT:g} times as long as wide"
    return _of(rows, shape, f"no picture is {shape}")


PICTURE_CHECKS: dict[str, Callable[[PictureTable, DataConfig], Finding]] = {
    "undecodable": undecodable,
    "extension_mismatch": extension_mismatch,
    "too_many_pixels": too_many_pixels,
    "too_small": too_small,
    "near_blank": near_blank,
    "dark": dark,
    "bright": bright,
    "blurred": blurred,
    "odd_aspect": odd_aspect,
}


def _of(rows: pd.DataFrame, defect: str, otherwise: str) -> Finding:
    ids = list(rows["id"])
    if not ids:
        return nothing(f"{otherwise[0].upper()}{otherwise[1:]}.")
    return Finding(len(ids), f"{counted(len(ids), 'picture', 'pictures')} {defect}: {some(ids)}.", pictures=ids)
