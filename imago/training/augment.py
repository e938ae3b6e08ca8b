"""Makes another picture of a picture, as the same species might have been photographed."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities.seed import isolate_rng
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing

from imago.data.transforms import RGB
from imago.errors import ConfigError

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Augmentation:
    """How far a picture may be changed."""

    smallest_crop: float = 0.4  # share of the picture's area
    stretch: float = 4 / 3  # of a crop's sides
    degrees: float = 0.0  # of rotation, either way
    colour: float = 0.3  # of brightness, contrast and saturation, either way
    rand_augment: str | None = None  # timm's, in place of turning and colours
    erasing: float = 0.0  # how often a rectangle is filled with noise


def augment(picture: RGB, size: int, rng: np.random.Generator, how: Augmentation) -> RGB:
    """Crop at random, turn, scale to `size` pixels, mirror every other time, and vary the light: (size, size, 3)."""
    image = Image.fromarray(picture)
    turns = bool(how.degrees) and not how.rand_augment
    degrees = rng.uniform(-how.degrees, how.degrees) if turns else 0.0
    box = random_crop(picture.shape[1], picture.shape[0], rng, how)
    if turns:
        image = _turned(image, size, box, degrees)
    else:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how.rand_augment:
        with drawn_from(rng):
            return np.asarray(_rand_augment(how.rand_augment)(image))
    return vary_light(np.asarray(image), rng, how.colour)


def erase(inputs: npt.NDArray[np.float32], rng: np.random.Generator, how: Augmentation) -> npt.NDArray[np.float32]:
    """Fill a rectangle of a model's input (3, H, W) with noise, as often as `erasing` says.

    Zhong et al. 2020, https://arxiv.org/abs/1708.04896.
    """
    if rng.random() >= how.erasing:
        return inputs
    with drawn_from(rng):
        erased = RandomErasing(probability=1.0, mode="pixel", device="cpu")(torch.from_numpy(inputs))
    return np.asarray(erased, dtype=np.float32)


@contextmanager
def drawn_from(rng: np.random.Generator) -> Iterator[None]:
    """Let what draws from the global generators of Python, numpy and torch draw from this one for a while."""
    with isolate_rng(include_cuda=False):
        seed_everything(int(rng.integers(2**31)), verbose=False)
        yield


def check_rand_augment(policy: str) -> None:
    """Raise ConfigError where timm does not know what `training.rand_augment` says."""
    try:
        _rand_augment(policy)
        for section in policy.split("-")[1:]:
            if not section.startswith("t") and not re.search(r"\d", section):
                raise ValueError(f"{section} has no number")  # which timm skips without a word
    except (AssertionError, ValueError, KeyError, NotImplementedError) as error:
        raise ConfigError(
            f"training.rand_augment: '{policy}' is no policy of timm's RandAugment: write, say, rand-m7-n2."
        ) from error


@cache
def _rand_augment(policy: str) -> Callable[[Image.Image], Image.Image]:
    known: Callable[[Image.Image], Image.Image] = rand_augment_transform(policy, {"img_mean": (124, 116, 104)})
    return known


def random_crop(
    width: int, height: int, rng: np.random.Generator, how: Augmentation
) -> tuple[float, float, float, float]:
    """Return a box within the picture as left, top, right, bottom, in pixels."""
    area = width * height * rng.uniform(how.smallest_crop, 1.0)
    ratio = np.exp(rng.uniform(-np.log(how.stretch), np.log(how.stretch)))
    wide, high = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
    return float(left), float(top), float(left + wide), float(top + high)


def _turned(image: Image.Image, size: int, box: tuple[float, float, float, float], degrees: float) -> Image.Image:
    """Return what is in the box, turned about its centre, as (size, size) pixels; the picture's mean is around it.

    All in one pass, which takes half the time of turning the picture first; of what is to become much smaller, blocks
    of pixels are averaged before it.
    """
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    left, top, right, bottom = box
    if (fold := int(min(right - left, bottom - top) / size)) > 1:
        image = image.reduce(fold)
        left, top, right, bottom = (edge / fold for edge in box)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across = ((right - left) / size) * np.array([cosine, sine])  # in the picture, for a step to the right
    down = ((bottom - top) / size) * np.array([-sine, cosine])  # and for one downwards
    corner = np.array([left + right, top + bottom]) / 2 - (across + down) * size / 2
    rows = (across[0], down[0], corner[0], across[1], down[1], corner[1])
    return image.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR, fillcolor=mean)


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
