"""Which of many pictures may show the same, by their outlines, without comparing each with each.

Each outline is looked at whole and in seven parts, so that a picture and what was cut out of it have a view in common.
The cells of a view are turned into few numbers that are as independent as the pictures allow (whitening), for on
specimens in one pose most cells say the same of all. Views that these numbers place side by side in any of several
random orders are compared: locality-sensitive hashing by random hyperplanes, Charikar 2002,
https://doi.org/10.1145/509907.509965, with sorted neighbourhoods in place of buckets, so that the work grows with
n log n whatever the pictures are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_COSINE = 0.74
"""Of whitened views. Copies with up to 15 % of their sides cut off reach it; half of all other pictures do, too."""

_PART, _NARROW = 0.87, 0.82  # of a side
_WHOLE = (0.0, 1.0)
_CELLS = 7  # a side
_DIMENSIONS = 32
_ORDERS = 12
_KEY_BITS = 24
_BLOCK = 64  # views that are compared with each other, half of them with those of the next block, too
_BLOCKS = 128  # at once
_ALL_PAIRS = 2048  # views up to which each is compared with each
_FEW = 100  # pictures up to which the nearest is a candidate however far it is: whitening says little yet
_CHUNK = 4096

QUARTERS = 4
TURNS = 2 * QUARTERS
"""Ways to turn a picture: by 0 to 3 quarters, then its mirror image likewise."""

Outlines = npt.NDArray[np.uint8]
"""(N, S, S): luma."""
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Indices = npt.NDArray[np.int64]
Window = tuple[tuple[float, float], tuple[float, float]]


def turn(pictures: Outlines, by: int) -> Outlines:
    """Turn pictures (N, S, S) by one of the `TURNS`."""
    return np.rot90(pictures[:, :, ::-1] if by >= QUARTERS else pictures, by, axes=(1, 2))


@dataclass(frozen=True)
class Space:
    """In which outlines are near each other: `axes` (C, D) and `mean` (C,) of their cells."""

    axes: Floats
    mean: Floats
    few: bool

    @classmethod
    def of(cls, outlines: Outlines) -> "Space":
        """Learn what all outlines share. Few pictures say little of what is common to all: whitened less."""
        count, whole = len(outlines), _windows()[0]
        mean = sum(cells.sum(axis=0, dtype=np.float64) for cells in _cells(outlines, whole)) / count
        covariance = sum((cells - mean).T @ (cells - mean) for cells in _cells(outlines, whole)) / count
        variances, directions = np.linalg.eigh(covariance)
        variances, directions = variances[::-1][:_DIMENSIONS], directions[:, ::-1][:, :_DIMENSIONS]
        shrinkage = variances.mean() * (1 + len(covariance) / count) + 1e-6
        axes = directions / np.sqrt(np.maximum(variances, 0) + shrinkage)
        return cls(axes.astype(np.float32), np.asarray(mean, dtype=np.float32), count <= _FEW)


def candidate_pairs(outlines: Outlines, space: Space, *, turned: bool = False) -> tuple[Indices, Indices]:
    """Return the pairs (P, 2) worth a look, each picture with its nearest, and how the second one is turned (P,).

    The smaller index stands first, and the pairs are sorted. Without `turned`, all pictures count as upright.
    """
    count = len(outlines)
    views = [(0, window) for window in _windows()] + [(by, _windows()[0]) for by in range(1, TURNS if turned else 1)]
    vectors = np.empty((len(views) * count, space.axes.shape[1]), dtype=np.float16)
    for (by, window), part in zip(views, np.split(vectors, len(views)), strict=True):
        _fill(part, turn(outlines, by), window, space)
    turns = np.array([by for by, _ in views])  # of each view, of which there are `count`, one after the other
    nearest, how, cosines = np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, -np.inf, np.float32)
    for members in _side_by_side(vectors):
        place, other, cosine = _nearest_in_block(vectors, count, turns, members)
        rows = place % count
        better = cosine > cosines[rows]
        by_cosine = np.flatnonzero(better)[np.argsort(cosine[better], kind="stable")]  # the last one written stays
        rows, place, other = rows[by_cosine], place[by_cosine], other[by_cosine]
        cosines[rows], nearest[rows] = cosine[by_cosine], other % count
        ours, theirs = turns[place // count], turns[other // count]
        how[rows] = np.where(ours == 0, theirs, _inverse(ours))
    near = np.flatnonzero(cosines >= (-1.0 if space.few else MIN_COSINE))
    first = near < nearest[near]
    pairs = np.sort(np.stack([near, nearest[near]], axis=1), axis=1)
    unique, at = np.unique(pairs, axis=0, return_index=True)
    return unique, np.where(first, how[near], _inverse(how[near]))[at]


def _inverse(turns: Indices) -> Indices:
    return np.where(turns < QUARTERS, -turns % QUARTERS, turns)


def _windows() -> list[Window]:
    """Return the views, each by what it spans of the height and of the width; the first is the whole."""
    first, last, middle = (0.0, _PART), (1 - _PART, 1.0), ((1 - _PART) / 2, (1 + _PART) / 2)
    narrow = ((1 - _NARROW) / 2, (1 + _NARROW) / 2)
    parts = [(first, first), (first, last), (last, first), (last, last), (middle, middle)]
    return [(_WHOLE, _WHOLE), *parts, (narrow, _WHOLE), (_WHOLE, narrow)]


def _fill(vectors: Halves, outlines: Outlines, window: Window, space: Space) -> None:
    """Put the unit vectors (N, D) of one view where they belong."""
    start = 0
    for cells in _cells(outlines, window):
        white = (cells - space.mean) @ space.axes
        white /= np.linalg.norm(white, axis=1, keepdims=True) + 1e-9
        vectors[start : start + len(white)] = white
        start += len(white)


def _cells(outlines: Outlines, window: Window) -> Iterator[Floats]:
    """Give the means of a view's cells, of mean 0 and deviation 1: light and contrast do not count."""
    side = outlines.shape[1]
    down, across = (_averages(side, _CELLS, *span) for span in window)
    for start in range(0, len(outlines), _CHUNK):
        some = outlines[start : start + _CHUNK].astype(np.float32)
        cells: Any = (down @ some @ across.T).reshape(len(some), -1)
        cells -= cells.mean(axis=1, keepdims=True)
        yield cells / (cells.std(axis=1, keepdims=True) + 1.0)


def _averages(side: int, cells: int, first: float = 0.0, last: float = 1.0) -> Floats:
    """Return what averages a line of pixels into cells (C, S), from one part of the side to another."""
    edges = np.linspace(first * side, last * side, cells + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Floats = np.maximum(covered, 0).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _side_by_side(vectors: Halves) -> Iterator[Indices]:
    """Give blocks (B, M) of indices whose members are to be compared with each other."""
    count = len(vectors)
    if count <= _ALL_PAIRS:
        yield np.arange(count)[None]
        return
    rng = np.random.default_rng(0)
    powers = 1 << np.arange(_KEY_BITS, dtype=np.int32)
    for _ in range(_ORDERS):
        planes = rng.standard_normal((vectors.shape[1], _KEY_BITS)).astype(np.float32)
        chunks = (vectors[start : start + _CHUNK].astype(np.float32) for start in range(0, count, _CHUNK))
        order = np.argsort(np.concatenate([(chunk @ planes > 0) @ powers for chunk in chunks]), kind="stable")
        starts = np.minimum(np.arange(0, count - _BLOCK // 2, _BLOCK // 2), count - _BLOCK)
        for start in range(0, len(starts), _BLOCKS):
            yield order[starts[start : start + _BLOCKS, None] + np.arange(_BLOCK)]


def _nearest_in_block(vectors: Halves, count: int, turns: Indices, members: Indices) -> tuple[Indices, Indices, Floats]:
    """Return each member, the one in its block that is nearest to it, and their cosine.

    None is compared with a view of the same picture, and no two turned ones with each other.
    """
    some = vectors[members].astype(np.float32)
    cosines = some @ some.transpose(0, 2, 1)
    whose, how = members % count, turns[members // count] > 0
    cosines[whose[:, :, None] == whose[:, None, :]] = -np.inf
    if how.any():
        cosines[how[:, :, None] & how[:, None, :]] = -np.inf
    best = cosines.argmax(axis=2)
    nearest = np.take_along_axis(members, best, axis=1)
    return members.ravel(), nearest.ravel(), np.take_along_axis(cosines, best[..., None], axis=2).ravel()
