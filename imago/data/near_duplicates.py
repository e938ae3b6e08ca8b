"""Pictures that show the same without being the same file: saved again, resized, recoloured, cropped, turned.

Two pictures are alike where one of them, looked at closely, lies over the other or a part of it. A hash is not enough:
on specimens in one pose on plain cloth it pairs hundreds of different animals.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from imago.data.alignment import Fit, align, extent, frame, refine, residual
from imago.data.features import luma_of
from imago.data.neighbours import Indices, Outlines, Space, candidate_pairs, turn
from imago.data.transforms import RGB

OUTLINE_SIDE = 28
CLOSE_SIDE = 64

MAX_RESIDUAL = 0.5
"""What two pictures may differ by. Copies with up to a fifth cut off differ by at most 0.25. Of 4,400 published
photographs 47 pairs that show one animal do so by up to 0.45; of others in one pose one by 0.42, the next by 0.6."""
SMALL_SUBJECT = 0.6
"""Of a picture's side. A smaller subject is looked at alone, too: its outline alone would make two of them alike."""

_AROUND = 0.75  # of a small subject's side, from its middle
_CHUNK = 512  # pairs
_ZOOM = CLOSE_SIDE / OUTLINE_SIDE

Agreements = npt.NDArray[np.float32]
Look = Callable[[int], RGB]
"""Gives a picture's pixels by its index."""


@dataclass(frozen=True)
class Alike:
    """Indices of pictures that look alike, and how well the least like of the pairs that join them agree, up to 1."""

    members: list[int]
    agreement: float


def outline(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture's luma (H, W) as (28, 28)."""
    return np.asarray(
        Image.fromarray(luma).resize((OUTLINE_SIDE, OUTLINE_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    )


def near_duplicates(outlines: Outlines, look: Look, *, turned: bool = False) -> list[Alike]:
    """Return the pictures that look alike, by `outline` and `look`.

    With `turned`, mirror images and quarter turns count as well. A group is held together by its pairs: of three, the
    first and the last may differ more. Identical entries count as alike. Groups, and what is in them, are in the order
    of the input.
    """
    count = len(outlines)
    if count < 2:
        return []
    space, groups = Space.of(outlines), list[Alike]()
    pairs, agreements = np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32)
    among = np.arange(count)
    with threadpool_limits(1, "blas"):  # for matrices this small, threads cost more than they save
        while len(among) > 1:
            found, how_well = _alike_pairs(outlines, among, look, space, turned=turned)
            pairs, agreements = np.concatenate([pairs, found]), np.concatenate([agreements, how_well])
            groups = _groups(count, pairs, agreements)
            # Each was only compared with its nearest: two groups of copies may still be of one picture.
            among = np.array([group.members[0] for group in groups] if len(found) else [], dtype=np.int64)
    return groups


def _alike_pairs(
    outlines: Outlines, among: Indices, look: Look, space: Space, *, turned: bool
) -> tuple[Indices, Agreements]:
    """Return pairs (P, 2) of pictures that look alike, each with the one nearest to it, and how well they agree."""
    candidates, turns = candidate_pairs(
        outlines if len(among) == len(outlines) else outlines[among], space, turned=turned
    )
    pairs, agreements = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(candidates), _CHUNK):
        some, ways = among[candidates[start : start + _CHUNK]], turns[start : start + _CHUNK]
        left, right = _seen(some, ways, lambda index: outlines[index])
        forth, back = align(left, right)
        worth = np.flatnonzero(_same(left, right, forth, back))
        if not len(worth):
            continue
        some, ways, forth, back = some[worth], ways[worth], forth.of(worth).at(_ZOOM), back.of(worth).at(_ZOOM)
        left, right = _seen(some, ways, lambda index: _luma(look(index)))
        forth, back = refine(left, right, forth), refine(right, left, back)
        same = _same(left, right, forth, back)
        small = np.flatnonzero(same & (extent(left) < SMALL_SUBJECT))
        if len(small):  # what is around it must not speak for it
            left, right = _seen(some[small], ways[small], lambda index: _subject(look(index)))
            same[small] = _same(left, right, *align(left, right))
        pairs.append(some[same])
        agreements.append(np.maximum(forth.agreement, back.agreement)[same])
    return np.concatenate(pairs), np.concatenate(agreements)


def _same(left: Outlines, right: Outlines, forth: Fit, back: Fit) -> npt.NDArray[np.bool_]:
    best = np.maximum(forth.agreement, back.agreement)
    same: npt.NDArray[np.bool_] = residual(left, right, best) <= MAX_RESIDUAL
    return same


def _seen(pairs: Indices, turns: Indices, view: Callable[[int], npt.NDArray[np.uint8]]) -> tuple[Outlines, Outlines]:
    """Return both pictures of each pair, the second one turned to lie as the first one does."""
    left, right = (np.stack([view(index) for index in side]) for side in pairs.T.tolist())
    return left, np.concatenate([turn(one[None], by) for one, by in zip(right, turns, strict=True)])


def _luma(picture: RGB) -> npt.NDArray[np.uint8]:
    luma = Image.fromarray(luma_of(picture).levels)
    return np.asarray(luma.resize((CLOSE_SIDE, CLOSE_SIDE), Image.Resampling.BILINEAR))


def _subject(picture: RGB) -> npt.NDArray[np.uint8]:
    """Return the luma of that part of a picture in which its detail lies."""
    luma = Image.fromarray(luma_of(picture).levels)
    edges = frame(_luma(picture))
    middle, reach = (edges[:2] + edges[2:]) / 2, _AROUND * (edges[2:] - edges[:2]).max()
    box = np.concatenate([middle - reach, middle + reach]).clip(0, 1) * [*luma.size, *luma.size]
    return np.asarray(luma.resize((CLOSE_SIDE, CLOSE_SIDE), Image.Resampling.BILINEAR, box=tuple(box)))


def _groups(count: int, pairs: Indices, agreements: Agreements) -> list[Alike]:
    edges = coo_array((np.ones(len(pairs), dtype=np.bool_), tuple(pairs.T)), shape=(count, count))
    _, component = connected_components(edges, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for index in np.unique(pairs).tolist():
        members[component[index]].append(index)
    least: dict[int, float] = defaultdict(lambda: 1.0)
    for index, value in zip(pairs[:, 0].tolist(), agreements.tolist(), strict=True):
        least[component[index]] = min(least[component[index]], value)
    return [Alike(group, round(least[number], 2)) for number, group in members.items()]
