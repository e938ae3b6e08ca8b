"""Where in a picture the answer comes from. numpy and Pillow only: the endpoint imports this."""

import io
import itertools
from math import isqrt
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.data.transforms import RGB

_TURBO = np.array(
    [(48, 18, 59), (70, 107, 227), (40, 187, 235), (50, 242, 152), (164, 252, 60),
     (238, 207, 58), (251, 126, 33), (208, 47, 5), (122, 4, 3)],
    dtype=np.float32,
)  # fmt: skip
"""Nine stations of the Turbo colour map, from nothing to all."""

_FORTH, _BACK = slice(None), slice(None, None, -1)
_MIRRORED = [(rows, columns) for rows in (_FORTH, _BACK) for columns in (_FORTH, _BACK)]
_STRONGEST = 0.6
_BATCH = 8
_LEAST = 0.01

Method = Literal["class_activation", "occlusion"]


class Classifier(Protocol):
    """What is asked of a model here; `imago.serving.runtime.Runtime` is one."""

    has_maps: bool
    maps_lean: bool  # to one side of the picture

    def preprocess(self, image: bytes, /) -> npt.NDArray[np.float32]:
        """Turn an encoded picture into the model's input (3, S, S): the square centre of it, scaled."""
        ...

    def predict_array(
        self, batch: npt.NDArray[np.float32], /
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Turn inputs (N, 3, S, S) into probabilities (N, C) and embeddings."""
        ...

    def maps(self, batch: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """Turn inputs into the features (N, D, h·h) that the head takes the mean of, if it `has_maps`."""
        ...

    def head(self, means: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """Turn means (N, D) of the maps into logits (N, C), if it `has_maps`."""
        ...


def method_of(runtime: Classifier) -> Method:
    """Tell how `heat_map` finds where the answer comes from."""
    return "class_activation" if runtime.has_maps else "occlusion"


def heat_map(runtime: Classifier, rgb: RGB) -> npt.NDArray[np.float32]:
    """Return how much of the answer comes from each place: (H, W) float32 in [0, 1].

    By class activation where the model has maps, for that asks it at most 4 times, and occlusion 50 times.
    """
    return class_activation_map(runtime, rgb) if runtime.has_maps else occlusion_map(runtime, rgb)


def class_activation_map(runtime: Classifier, rgb: RGB) -> npt.NDArray[np.float32]:
    """Return how much the answer's logit loses when a place is taken out of the maps' mean: (H, W) float32 in [0, 1].

    Where the head is linear, that is the map of class activation (Zhou et al. 2016, https://arxiv.org/abs/1512.04150);
    where it is deeper, what such a map stands for. What speaks for every class alike counts for none, what speaks
    against the answer is 0, and so is what the model does not see, beyond the square centre; 1 is the place that
    matters most. Where the maps lean to one side, it is averaged over mirror images.
    """
    seen = runtime.preprocess(encode(rgb, "BMP"))
    ways = _MIRRORED if runtime.maps_lean else _MIRRORED[:1]
    maps = runtime.maps(np.stack([seen[:, rows, columns] for rows, columns in ways]))
    answer = int(runtime.head(maps[:1].mean(axis=2))[0].argmax())
    turned = [_lost(runtime, places, answer)[way] for places, way in zip(maps, ways, strict=True)]
    lost: npt.NDArray[np.float32] = np.stack(turned).mean(axis=0)
    lost /= max(float(lost.max()), float(np.finfo(np.float32).tiny))
    return spread(lost, *rgb.shape[:2])


def _lost(runtime: Classifier, maps: npt.NDArray[np.float32], answer: int) -> npt.NDArray[np.float32]:
    """Return what the answer's logit loses without each place of the maps (D, h·h): (h, h)."""
    places, side = maps.T, isqrt(maps.shape[1])
    mean = places.mean(axis=0, keepdims=True)
    logits = runtime.head(np.concatenate([mean, mean - places / len(places)]))
    logits = logits[:, answer] - logits.mean(axis=1)
    lost: npt.NDArray[np.float32] = np.maximum(logits[0] - logits[1:], 0.0)
    return lost.reshape(side, side)


def occlusion_map(runtime: Classifier, rgb: RGB, grid: int = 7) -> npt.NDArray[np.float32]:
    """Return how much of the answer's probability is lost when a place is hidden: (H, W) float32 in [0, 1].

    A patch of the mean colour, half as large again as its cell, is laid over each cell of a grid, and the answer
    asked again (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901). 1 is the place that matters most, unless
    it matters by less than a point; what the model does not see, beyond the square centre, is 0.
    """
    seen = runtime.preprocess(encode(rgb, "BMP"))
    size = seen.shape[-1]
    edges = np.linspace(0, size, grid + 1).round().astype(int)
    margin = max(1, size // (4 * grid))
    spans = [slice(max(0, low - margin), high + margin) for low, high in itertools.pairwise(edges)]
    hidden = np.repeat(seen[None], 1 + grid * grid, axis=0)
    for index, (rows, columns) in enumerate(((rows, columns) for rows in spans for columns in spans), start=1):
        hidden[index, :, rows, columns] = 0.0
    batches = [hidden[start : start + _BATCH] for start in range(0, len(hidden), _BATCH)]
    probabilities = np.concatenate([runtime.predict_array(batch)[0] for batch in batches])
    answer = int(probabilities[0].argmax())
    lost = np.maximum(probabilities[0, answer] - probabilities[1:, answer], 0.0).reshape(grid, grid)
    most = max(float(lost.max()), _LEAST)
    return spread((lost / most).astype(np.float32), *rgb.shape[:2])


def spread(cells: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Lay a square map of what the model sees, the square centre, over the whole picture: (height, width)."""
    side = min(height, width)
    square = Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)
    heat = np.zeros((height, width), dtype=np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    heat[top : top + side, left : left + side] = np.clip(np.asarray(square), 0.0, 1.0)
    return heat


def overlay(rgb: RGB, heat: npt.NDArray[np.floating]) -> bytes:
    """Return the picture as PNG with the heat (H, W) in [0, 1] laid over it, the stronger the hotter."""
    values = np.clip(np.asarray(heat, dtype=np.float32), 0.0, 1.0)
    if values.shape != rgb.shape[:2]:
        raise ValueError(f"A heat map of {values.shape} does not fit a picture of {rgb.shape[:2]}.")
    stations = np.linspace(0.0, 1.0, len(_TURBO))
    colours = np.stack([np.interp(values, stations, _TURBO[:, channel]) for channel in range(3)], axis=-1)
    share = (_STRONGEST * values)[..., None]
    blended = rgb.astype(np.float32) * (1 - share) + colours * share
    return encode(blended.round().clip(0, 255).astype(np.uint8), "PNG")


def fit_within(rgb: RGB, longest_side: int) -> RGB:
    """Scale a picture down, never up, so that its longer side has at most so many pixels."""
    height, width = rgb.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def encode(rgb: RGB, kind: Literal["PNG", "BMP"]) -> bytes:
    """Return a picture's file, without loss."""
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, format=kind)
    return sink.getvalue()
