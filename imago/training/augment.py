"""Makes another picture of a picture, as the same species might have been photographed. Numpy and PIL only."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from imago.data.transforms import RGB

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Augmentation:
    """How far a picture may be changed."""

    smallest_crop: float = 0.4  # share of the picture's area
    stretch: float = 4 / 3  # of a crop's sides
    degrees: float = 0.0  # of rotation, either way
    colour: float = 0.3  # of brightness, contrast and saturation, either way


def augment(picture: RGB, size: int, rng: np.random.Generator, how: Augmentation) -> RGB:
    """Crop at random, scale to `size` pixels, mirror every other time, turn, and vary the light: (size, size, 3)."""
    image = Image.fromarray(picture)
    if how.degrees:
        filling = tuple(int(value) for value in picture.mean(axis=(0, 1)))
        angle = rng.uniform(-how.degrees, how.degrees)
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=filling)
    box = random_crop(picture.shape[1], picture.shape[0], rng, how)
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return vary_light(np.asarray(image), rng, how.colour)


def random_crop(
    width: int, height: int, rng: np.random.Generator, how: Augmentation
) -> tuple[float, float, float, float]:
    """Return a box within the picture as left, top, right, bottom, in pixels."""
    area = width * height * rng.uniform(how.smallest_crop, 1.0)
    ratio = np.exp(rng.uniform(-np.log(how.stretch), np.log(how.stretch)))
    wide, high = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
    return float(left), float(top), float(left + wide), float(top + high)


def vary_light(picture: RGB, rng: np.random.Generator, strength: float) -> RGB:
    """Change brightness, contrast and saturation by up to `strength` either way."""
    if not strength:
        return picture
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    values = picture.astype(np.float32)
    grey = (values @ _GREY)[..., None]
    values = grey + (values - grey) * saturation
    mean = grey.mean()
    values = (mean + (values - mean) * contrast) * brightness
    return np.asarray(values.clip(0, 255).astype(np.uint8))
