"""How well one of two pictures lies over the other, or over a part of it, whatever its colours and contrast."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

MIN_ZOOM = 0.8
"""What share of a picture's side the other may be cut to."""

_STEP = 2  # pixels of side between one zoom and the next
_RIM = 2  # pixels at the edge, where detail cannot be told
FINE, SMOOTH = 1.25, 10.0
"""Pixels: what is smoother than this does not count. Fine detail tells one animal from another in the same pose; with
what is smooth, the ground that they sit on counts too."""

Floats = npt.NDArray[np.float32]


def alignment(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8], sigma: float = FINE) -> Floats:
    """Return for each pair of luma pictures (P, S, S) how well they agree, (P,) in [-1, 1].

    That is the normalised cross-correlation of their detail, of up to `sigma` pixels, the best over zooms and shifts of
    either within the other. Lewis 1995, Fast Normalized Cross-Correlation.
    """
    one, other = left.astype(np.float32), right.astype(np.float32)
    best: Floats = np.maximum(_within(one, other, sigma), _within(other, one, sigma))
    return best


def _within(whole: Floats, part: Floats, sigma: float) -> Floats:
    side = whole.shape[-1]
    detail = _shrunk(whole, side, sigma)
    spectrum = fft.rfft2(detail)
    sums, squares = _integral(detail), _integral(detail**2)
    best: Floats = np.full(len(whole), -1.0, dtype=np.float32)
    for size in range(side, round(side * MIN_ZOOM) - 1, -_STEP):
        template = _shrunk(part, size, sigma)[:, _RIM : size - _RIM, _RIM : size - _RIM]
        template = template - template.mean(axis=(1, 2), keepdims=True)
        inner = template.shape[-1]
        shifts = side - inner + 1
        product = fft.irfft2(spectrum * fft.rfft2(template, s=(side, side)).conj(), s=(side, side))
        variance = _boxes(squares, inner) - _boxes(sums, inner) ** 2 / inner**2
        scale = np.sqrt(np.maximum(variance, 0)) * np.linalg.norm(template, axis=(1, 2))[:, None, None]
        agreement = product[:, :shifts, :shifts] / np.maximum(scale, 1.0)
        np.maximum(best, agreement.max(axis=(1, 2)), out=best)
    return best


def _shrunk(pictures: Floats, size: int, sigma: float) -> Floats:
    """Return the pictures at another size, without what is smooth in them."""
    resize, smooth = _matrices(pictures.shape[-1], size, sigma)
    detail: Floats = _both_ways(resize, pictures) - _both_ways(smooth, pictures)
    return detail


def _both_ways(matrix: Floats, pictures: Floats) -> Floats:
    count, side, _ = pictures.shape
    rows = (pictures.reshape(-1, side) @ matrix.T).reshape(count, side, -1).transpose(0, 2, 1)
    both: Any = (rows.reshape(-1, side) @ matrix.T).reshape(count, len(matrix), -1).transpose(0, 2, 1)
    return np.asarray(both, dtype=np.float32)


@cache
def _matrices(side: int, size: int, sigma: float) -> tuple[Floats, Floats]:
    """Return what resizes a line of pixels, and what also smooths it: (size, side)."""
    centres = (np.arange(size) + 0.5) * side / size - 0.5
    apart = np.abs(np.arange(side)[None, :] - centres[:, None]) * min(size / side, 1.0)
    resize = np.maximum(1 - apart, 0)
    resize /= resize.sum(axis=1, keepdims=True)
    near = np.exp(-0.5 * ((np.arange(size)[:, None] - np.arange(size)[None, :]) / sigma) ** 2)
    near /= near.sum(axis=1, keepdims=True)
    return resize.astype(np.float32), (near @ resize).astype(np.float32)


def _integral(pictures: Floats) -> npt.NDArray[np.float64]:
    """Return sums over all that is above and to the left: (P, S + 1, S + 1)."""
    return np.pad(pictures.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)


def _boxes(integral: npt.NDArray[np.float64], size: int) -> Floats:
    """Return the sum over each square of this size: (P, S - size + 1, S - size + 1)."""
    below = integral[:, size:] - integral[:, :-size]
    return (below[:, :, size:] - below[:, :, :-size]).astype(np.float32)
