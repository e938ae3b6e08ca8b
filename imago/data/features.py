"""A few numbers that say what a picture looks like, measured alike in the data set and at the endpoint."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.data.transforms import RGB

FEATURES = ("brightness", "contrast", "sharpness", "red", "green", "blue")
SIDE = 256

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_ROWS = 256  # whose sum fits 16 bits


def picture_features(picture: RGB) -> dict[str, float]:
    """Measure a picture (height, width, 3) uint8 on a scale where black is 0 and white is 1.

    `brightness` and `contrast` are the mean and the standard deviation of the luma, `sharpness` is the standard
    deviation of its Laplacian, and `red`, `green` and `blue` are means. Large pictures are first averaged down until
    the longer side is below two times 256 pixels, so that sharpness compares between sizes.
    """
    picture = shrunk(picture)
    return features_of(picture, luma_of(picture))


def shrunk(picture: RGB) -> RGB:
    """Return a picture as it is measured: averaged down where it is large."""
    factor = max(picture.shape) // SIDE
    return np.asarray(Image.fromarray(picture).reduce(factor)) if factor > 1 else picture


class Luma(NamedTuple):
    """A picture's luma (height, width), from 0 to 255: as it is, and in whole levels."""

    exact: npt.NDArray[np.float32]
    levels: npt.NDArray[np.uint8]


def luma_of(picture: RGB) -> Luma:
    """Return the luma of a picture, ITU-R BT.601."""
    exact = picture @ _LUMA
    return Luma(exact, (exact + np.float32(0.5)).astype(np.uint8))


def features_of(picture: RGB, luma: Luma) -> dict[str, float]:
    """Measure what `shrunk` gave, and its luma, as `picture_features` does."""
    values = luma.exact.ravel()
    mean = float(values.mean())
    red, green, blue = _mean_colour(picture)
    return {
        "brightness": mean / 255,
        "contrast": math.sqrt(max(float(np.vdot(values, values)) / values.size - mean**2, 0.0)) / 255,
        "sharpness": _sharpness(luma.levels),
        "red": red,
        "green": green,
        "blue": blue,
    }


def _mean_colour(picture: RGB) -> tuple[float, float, float]:
    height, width, channels = picture.shape
    rows = picture.reshape(height, width * channels)
    sums = sum(
        np.add.reduce(rows[top : top + _ROWS], axis=0, dtype=np.uint16).astype(np.uint32)  # 16 bits are added fastest
        for top in range(0, height, _ROWS)
    )
    red, green, blue = np.reshape(sums, (width, channels)).sum(axis=0) / (height * width * 255)
    return float(red), float(green), float(blue)


def _sharpness(luma: npt.NDArray[np.uint8]) -> float:
    height, width = luma.shape
    if min(height, width) < 3:
        return 0.0
    levels = luma.astype(np.int16).ravel()  # one long row is added faster than many
    middle = levels[width:-width]
    laplacian = levels[: -2 * width] + levels[2 * width :]
    laplacian[1:] += middle[:-1]
    laplacian[:-1] += middle[1:]
    laplacian -= middle * 4
    values = laplacian.astype(np.float32)
    values.reshape(-1, width)[:, [0, -1]] = 0.0  # what has no neighbour on one side
    count = (height - 2) * (width - 2)
    mean, square = float(values.sum()) / count, float(np.vdot(values, values)) / count
    return math.sqrt(max(square - mean**2, 0.0)) / 255
