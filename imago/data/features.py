"""A few numbers that say what a picture looks like, measured alike in the data set and at the endpoint."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.data.transforms import RGB

FEATURES = ("brightness", "contrast", "sharpness", "red", "green", "blue")
SIDE = 256

Plane = npt.NDArray[np.float32]

_LUMA: Plane = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def picture_features(picture: RGB) -> dict[str, float]:
    """Measure a picture (height, width, 3) uint8; each value is in [0, 1] but `sharpness`, which only grows from 0.

    `brightness` and `contrast` are the mean and the standard deviation of the luma; `sharpness` is the standard
    deviation of the luma's Laplacian; `red`, `green` and `blue` are mean values. Large pictures are averaged down first
    until the longer side is below two times 256 pixels, so that sharpness compares between sizes.
    """
    factor = max(picture.shape[:2]) // SIDE
    if factor > 1:
        picture = np.asarray(Image.fromarray(picture).reduce(factor))
    values = picture.astype(np.float32) / np.float32(255)
    luma: Plane = values @ _LUMA
    red, green, blue = values.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    return {
        "brightness": float(luma.mean(dtype=np.float64)),
        "contrast": float(luma.std(dtype=np.float64)),
        "sharpness": _sharpness(luma),
        "red": float(red),
        "green": float(green),
        "blue": float(blue),
    }


def _sharpness(luma: Plane) -> float:
    if min(luma.shape) < 3:
        return 0.0
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre
    return float(laplacian.std(dtype=np.float64))
