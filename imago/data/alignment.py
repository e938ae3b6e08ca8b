"""How well one of two pictures lies over the other, or over a part of it, whatever its colours and contrast."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

MIN_ZOOM = 0.7
"""What share of a picture's height or width the other may be cut to."""

_FIRST_ZOOM, _STEP = 0.8, 4  # the least to begin with, and pixels of side between one and the next
_FINER = ((4, 1.1), (2, 0.85), (1, 0.65))  # pixels, and what residual is too large for it to be worth it
_RIM = 2  # pixels at the edge, where detail cannot be told
_SMOOTH = 2.0  # pixels: what is smoother is not detail
_AROUND = 6.0  # pixels, within which detail is as strong everywhere: the ground counts as much as what sits on it
_NOISE = np.float32(4.0)  # levels of 256, below which detail is not made stronger
_BEYOND = 0.04  # of the detail

Floats = npt.NDArray[np.float32]
Luma = npt.NDArray[np.uint8]
Size = tuple[int, int]
Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """How well pairs of pictures agree, (P,) in [-1, 1], and the part's height and width (P, 2) then, in pixels."""

    agreement: Floats
    sizes: Sizes

    def of(self, some: Sizes) -> "Fit":
        """Return the fit of some of the pairs, by their indices."""
        return Fit(self.agreement[some], self.sizes[some])

    def at(self, zoom: float) -> "Fit":
        """Return where to begin with larger pictures of the same pairs, whose agreement is not known yet."""
        return Fit(np.full_like(self.agreement, -1), np.rint(self.sizes * zoom).astype(np.int64))


def align(left: Luma, right: Luma) -> tuple[Fit, Fit]:
    """Lay of each pair of luma pictures (P, S, S) the right over the left or a part of it, and back."""
    return refine(left, right, fit(left, right)), refine(right, left, fit(right, left))


def fit(whole: Luma, part: Luma) -> Fit:
    """Lay each part (P, S, S) over its whole, at every shift and at few zooms.

    Agreement is the normalised cross-correlation (Lewis 1995, Fast Normalized Cross-Correlation) of their detail, of
    equal contrast everywhere (Jarrett et al. 2009, https://doi.org/10.1109/ICCV.2009.5459469).
    """
    count, side = len(whole), whole.shape[-1]
    best = Fit(np.full(count, -1, np.float32), np.full((count, 2), side, np.int64))
    for size, found in _agreements(_detail(whole), _detail(part), _zooms(side)):
        _keep(best, np.arange(count), size, found)
    return best


def refine(whole: Luma, part: Luma, rough: Fit) -> Fit:
    """Lay them over each other at the sizes around those that `fit` found, in smaller and smaller steps.

    What agrees too little to become the same picture is left as it is.

    Hooke and Jeeves 1961, https://doi.org/10.1145/321062.321069.
    """
    one, other, side = _detail(whole), _detail(part), whole.shape[-1]
    best, room = Fit(rough.agreement.copy(), rough.sizes.copy()), _room(one, other)
    for number, (step, most) in enumerate(_FINER):
        promising = np.flatnonzero((1 - best.agreement <= most * room) | (best.agreement < 0))
        for middle, group in _same(best.sizes[promising]):
            pairs = promising[group]
            sizes = _around(middle, step, side) + ([] if number else [middle])
            for size, found in _agreements(one[pairs], other[pairs], sizes):
                _keep(best, pairs, size, found)
    return best


def residual(left: Luma, right: Luma, agreements: Floats) -> Floats:
    """Return what pairs of pictures (P, S, S) differ by, (P,): 1 is what one differs by from itself a pixel aside.

    So what is smooth has to agree better than what is not.
    """
    return np.asarray((1 - agreements) / _room(_detail(left), _detail(right)), dtype=np.float32)


def _room(one: Floats, other: Floats) -> Floats:
    """Return what the rougher one of each pair of details differs by from itself a pixel aside, (P,)."""
    return np.asarray(1 - np.minimum(_aside(one), _aside(other)) + 1e-6, dtype=np.float32)


def _aside(detail: Floats) -> Floats:
    centred = detail - detail.mean(axis=(1, 2), keepdims=True)
    down = (centred[:, 1:] * centred[:, :-1]).sum(axis=(1, 2))
    across = (centred[:, :, 1:] * centred[:, :, :-1]).sum(axis=(1, 2))
    return np.asarray((down + across) / (2 * np.square(centred).sum(axis=(1, 2)) + 1e-6), dtype=np.float32)


def frame(luma: Luma) -> npt.NDArray[np.float64]:
    """Return the left, upper, right, lower edge of where the detail of pictures (..., S, S) lies, in [0, 1]: (..., 4).

    A twenty-fifth of it lies beyond each of them.
    """
    side = luma.shape[-1]
    levels = luma.reshape(-1, side, side).astype(np.float32)
    energy = np.square(levels - _smoothed(levels, _SMOOTH)) + np.float32(1e-9)
    edges = []
    for across in (energy.sum(axis=1), energy.sum(axis=2)):
        share = across.cumsum(axis=1) / across.sum(axis=1, keepdims=True)
        edges.append([(share < _BEYOND).sum(axis=1) / side, 1 - (share > 1 - _BEYOND).sum(axis=1) / side + 1 / side])
    (left, right), (top, bottom) = edges
    return np.stack([left, top, right, bottom], axis=-1).clip(0, 1).reshape(*luma.shape[:-2], 4)


def extent(luma: Luma) -> npt.NDArray[np.float64]:
    """Return the longer side of the `frame` of pictures (P, S, S): (P,) in [0, 1]."""
    edges = frame(luma)
    return np.maximum(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1])


def _keep(best: Fit, pairs: Sizes, size: Size, found: Floats) -> None:
    better = found > best.agreement[pairs]
    best.agreement[pairs[better]], best.sizes[pairs[better]] = found[better], size


def _same(sizes: Sizes) -> list[tuple[Size, Sizes]]:
    """Return each size that there is with the pairs that have it."""
    distinct, place = np.unique(sizes, axis=0, return_inverse=True)
    return [
        ((high, wide), np.flatnonzero(place.ravel() == number)) for number, (high, wide) in enumerate(distinct.tolist())
    ]


def _agreements(whole: Floats, part: Floats, sizes: list[Size]) -> Iterator[tuple[Size, Floats]]:
    """Give for each size of the part how well it agrees with the whole, (P,), at the best shift."""
    side = whole.shape[-1]
    spectrum, squares = fft.rfft2(whole), np.square(whole)
    for size in sizes:
        down, across = (_resizing(side, pixels)[_RIM:-_RIM] for pixels in size)
        inside = _both_ways(down, part, across)
        inside -= inside.mean(axis=(1, 2), keepdims=True)
        high, wide = inside.shape[1:]
        product = fft.irfft2(spectrum * fft.rfft2(inside, s=(side, side)).conj(), s=(side, side))
        rows, columns = _covering(side, high), _covering(side, wide)
        mean = _both_ways(rows, whole, columns) / (high * wide)
        variance = _both_ways(rows, squares, columns) - mean**2 * (high * wide)
        scale = np.sqrt(np.maximum(variance, 0)) * np.linalg.norm(inside, axis=(1, 2))[:, None, None]
        yield size, (product[:, : len(rows), : len(columns)] / np.maximum(scale, 1e-3)).max(axis=(1, 2))


def _detail(luma: Luma) -> Floats:
    """Return what is not smooth in pictures (P, S, S), of the same strength everywhere, where there is any."""
    levels = luma.astype(np.float32)
    detail = levels - _smoothed(levels, _SMOOTH)
    return np.asarray(detail / (np.sqrt(_smoothed(np.square(detail), _AROUND)) + _NOISE), dtype=np.float32)


def _smoothed(pictures: Floats, sigma: float) -> Floats:
    matrix = _gaussian(pictures.shape[-1], sigma)
    return _both_ways(matrix, pictures, matrix)


def _both_ways(down: Floats, pictures: Floats, across: Floats) -> Floats:
    return np.asarray(down @ pictures @ across.T, dtype=np.float32)


@cache
def _zooms(side: int) -> list[Size]:
    """Return the heights and widths to begin with."""
    sizes = range(side, round(side * _FIRST_ZOOM) - 1, -_STEP)
    return [(high, wide) for high in sizes for wide in sizes if abs(high - wide) <= _STEP]


def _around(middle: Size, step: int, side: int) -> list[Size]:
    least, moves = round(side * MIN_ZOOM), (-step, 0, step)
    near = [(middle[0] + down, middle[1] + across) for down in moves for across in moves if down or across]
    return [size for size in near if least <= min(size) and max(size) <= side]


@cache
def _resizing(side: int, size: int) -> Floats:
    """Return what resizes a line of pixels: (size, side)."""
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    apart = np.abs(np.arange(side)[None, :] - centres[:, None]) * min(size / side, 1.0)
    return _weights(np.maximum(1 - apart, 0))


@cache
def _gaussian(side: int, sigma: float) -> Floats:
    """Return what smooths a line of pixels: (side, side)."""
    return _weights(np.exp(-0.5 * ((np.arange(side)[:, None] - np.arange(side)[None, :]) / sigma) ** 2))


def _weights(matrix: npt.NDArray[np.float64]) -> Floats:
    weights: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


@cache
def _covering(side: int, size: int) -> Floats:
    """Return what sums each run of `size` in a line of pixels: (side - size + 1, side)."""
    covering: Floats = sliding_window_view(np.eye(side, dtype=np.float32), size, axis=0).sum(axis=2)
    return covering
