"""A few numbers that say what a picture looks like, measured alike in the data set and at the endpoint."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.data.transforms import RGB

FEATURES = ("brightness", "contrast", "sharpness", "red", "green", "blue")
SIDE = 256
_STRIP = 64  # rows

_LEVELS = np.arange(256) / 255


def picture_features(picture: RGB) -> dict[str, float]:
    """Measure a picture (height, width, 3) uint8 on a scale where black is 0 and white is 1.

    `brightness` and `contrast` are the mean and the standard deviation of the luma, `sharpness` is the standard
    deviation of its Laplacian, and `red`, `green` and `blue` are means. Large pictures are first averaged down until
    the longer side is below two times 256 pixels, so that sharpness compares between sizes.
    """
    image = shrunk(picture)
    return features_of(image, image.convert("L"))


def shrunk(picture: RGB) -> Image.Image:
    """Return a picture as it is measured: averaged down where it is large."""
    image = Image.fromarray(picture)
    factor = max(image.size) // SIDE
    return image.reduce(factor) if factor > 1 else image


def features_of(image: Image.Image, luma: Image.Image) -> dict[str, float]:
    """Measure what `shrunk` gave, and its luma, as `picture_features` does."""
    brightness, contrast = _mean_and_deviation(luma)
    red, green, blue = np.reshape(image.histogram(), (3, 256)) @ _LEVELS / (image.width * image.height)
    return {
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": _sharpness(np.asarray(luma)),
        "red": float(red),
        "green": float(green),
        "blue": float(blue),
    }


def _mean_and_deviation(luma: Image.Image) -> tuple[float, float]:
    share = np.asarray(luma.histogram()) / (luma.width * luma.height)
    mean = float(share @ _LEVELS)
    return mean, float(np.sqrt(share @ np.square(_LEVELS - mean)))


def _sharpness(luma: npt.NDArray[np.uint8]) -> float:
    height, width = luma.shape[0] - 2, luma.shape[1] - 2
    if min(height, width) < 1:
        return 0.0
    total = squares = 0.0
    for top in range(0, height, _STRIP):  # what is small stays in the cache, and in memory that is there already
        levels = luma[top : top + _STRIP + 2].astype(np.int16)
        laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1]
        laplacian += levels[1:-1, :-2]
        laplacian += levels[1:-1, 2:]
        laplacian -= levels[1:-1, 1:-1] * 4
        values = laplacian.astype(np.float32).ravel()
        total += float(values.sum())
        squares += float(np.vdot(values, values))
    count = height * width
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) / 255
