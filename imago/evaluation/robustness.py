"""What the accuracy becomes when pictures are worse than the test pictures are."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from imago.data.dataset import ImageDataset
from imago.data.transforms import RGB, decode, normalise, resize_to_square
from imago.evaluation.metrics import Finding
from imago.evaluation.significance import holm, mcnemar
from imago.serving.runtime import BATCH, Runtime

_SIGNIFICANCE = 0.05
STRENGTHS = (1, 2, 3)

Corruption = Callable[[RGB, int, np.random.Generator], RGB]


class RobustnessResult(Finding):
    """The accuracy on the same pictures, untouched and corrupted.

    Those that have a default are missing from the reports of earlier versions.
    """

    corruption: str
    strength: int  # 1, slight, to 3, strong
    count: int
    clean_accuracy: float
    accuracy: float
    p_value: float | None = None  # of McNemar's exact test on the answers before and after, two-sided
    hurt: bool | None = None  # fewer right than chance explains, the number of corruptions and strengths allowed for

    @property
    def drop(self) -> float:
        return self.clean_accuracy - self.accuracy


def blurred(picture: RGB, radius: float) -> RGB:
    """Blur by a Gaussian whose radius is this share of the side."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius * picture.shape[0])))


def compressed(picture: RGB, quality: int) -> RGB:
    """Return the picture after a way through JPEG."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="JPEG", quality=quality)
    return np.asarray(Image.open(sink).convert("RGB"))


def exposed(picture: RGB, factor: float) -> RGB:
    """Multiply every value, as a longer or shorter exposure would."""
    return _clipped(picture * factor)


def blur(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:  # noqa: ARG001
    """Blur by a radius of 0.5, 1 or 2 % of the side."""
    return blurred(picture, (0.005, 0.01, 0.02)[strength - 1])


def noise(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:
    """Add Gaussian noise of 8, 16 or 32 grey levels."""
    return _clipped(picture + rng.normal(0.0, (8, 16, 32)[strength - 1], size=picture.shape))


def jpeg(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:  # noqa: ARG001
    """Compress as JPEG of quality 40, 20 or 8."""
    return compressed(picture, (40, 20, 8)[strength - 1])


def brightness(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:
    """Make it darker or brighter, by chance, by a factor of 1.25, 1.5 or 2."""
    factor = (1.25, 1.5, 2.0)[strength - 1]
    return exposed(picture, factor if rng.random() < 0.5 else 1 / factor)


def contrast(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:  # noqa: ARG001
    """Shrink the distance of every value from the mean to 0.75, 0.5 or 0.25."""
    mean = picture.mean()
    return _clipped(mean + (picture - mean) * (0.75, 0.5, 0.25)[strength - 1])


def colour_cast(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:
    """Tint it bluish or reddish, by chance, as another camera or lamp would: red and blue apart by 1.1, 1.25 or 1.5."""
    factor = (1.1, 1.25, 1.5)[strength - 1] ** 0.5
    gains = np.array([factor, 1.0, 1 / factor] if rng.random() < 0.5 else [1 / factor, 1.0, factor])
    return _clipped(picture * gains)


def crop(picture: RGB, strength: int, rng: np.random.Generator) -> RGB:
    """Cut 10, 20 or 35 % off its height and width, at a random place, and scale the rest back."""
    kept = 1 - (0.1, 0.2, 0.35)[strength - 1]
    height, width = picture.shape[:2]
    left, top = rng.random() * (1 - kept) * width, rng.random() * (1 - kept) * height
    box = (left, top, left + kept * width, top + kept * height)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box))


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "blur": blur,
        "noise": noise,
        "jpeg": jpeg,
        "brightness": brightness,
        "contrast": contrast,
        "colour_cast": colour_cast,
        "crop": crop,
    }
)


def measure_robustness(
    runtime: Runtime, dataset: ImageDataset, *, seed: int, limit: int = 96
) -> list[RobustnessResult]:
    """Ask for the same pictures, at most `limit` drawn by `seed`, under every corruption at every strength.

    Corruptions are applied to what the model sees of a picture, so that a strength means the same at any size. Each
    is compared with the answers to the untouched pictures, Holm's correction applied over all of them.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:limit].tolist()
    seen = runtime.spec.preprocessing
    whole = (decode(dataset.image(row), side=seen.side) for row in chosen)
    pictures = [resize_to_square(picture, seen.image_size) for picture in whole]
    truth = np.array([dataset.labels[row] for row in chosen], dtype=object)
    clean = _right(runtime, pictures, truth)
    tried = []
    for position, (name, corrupt) in enumerate(CORRUPTIONS.items()):
        for strength in STRENGTHS:
            rng = np.random.default_rng([seed, position, strength])
            tried.append((name, strength, _right(runtime, [corrupt(one, strength, rng) for one in pictures], truth)))
    p_values = [mcnemar(int((clean & ~right).sum()), int((right & ~clean).sum())) for _, _, right in tried]
    return [
        RobustnessResult(
            corruption=name,
            strength=strength,
            count=len(pictures),
            clean_accuracy=float(clean.mean()),
            accuracy=float(right.mean()),
            p_value=p_value,
            hurt=surely and bool(right.sum() < clean.sum()),
        )
        for (name, strength, right), p_value, surely in zip(tried, p_values, holm(p_values, _SIGNIFICANCE), strict=True)
    ]


def _right(runtime: Runtime, pictures: Sequence[RGB], truth: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    classes = np.array(runtime.classes, dtype=object)
    found = [runtime.predict_array(batch)[0].argmax(axis=1) for batch in _batches(runtime, pictures)]
    return np.asarray(classes[np.concatenate(found)] == truth, dtype=np.bool_)


def _batches(runtime: Runtime, pictures: Sequence[RGB]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(pictures), BATCH):
        yield np.stack([normalise(picture, runtime.spec.preprocessing) for picture in pictures[start : start + BATCH]])


def _clipped(values: npt.NDArray[np.floating]) -> RGB:
    return values.round().clip(0, 255).astype(np.uint8)
