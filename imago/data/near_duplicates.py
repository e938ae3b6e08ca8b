"""Pictures that show the same without being the same file: saved again, resized, recoloured, cropped, turned.

Two pictures are alike where their difference hashes nearly agree and so do their mean colours, or where one of them,
looked at closely, lies over the other or a part of it. A hash alone is not enough: on specimens in one pose on plain
cloth it pairs hundreds of different animals.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from threadpoolctl import threadpool_limits

from imago.data.alignment import FINE, SMOOTH, alignment
from imago.data.neighbours import Indices, Outlines, averages, candidate_pairs, turn
from imago.data.transforms import RGB

HASH_SIDE = 16
OUTLINE_SIDE = 28
CLOSE_SIDE = 64

MAX_DISTANCE = 30
"""Bits of 256. Copies that were only re-encoded, resized or recoloured differ by fewer, other pictures by more."""
MAX_COLOUR_DISTANCE = 0.04
MIN_ALIGNMENT = 0.58
"""Of outlines: what is below is not looked at more closely. Of copies with up to a fifth cut off 98 % reach it."""
SURE_ALIGNMENT, MIN_CLOSE_ALIGNMENT, MIN_SMOOTH_ALIGNMENT = 0.75, 0.6, 0.81
"""Of fine detail: what reaches the first is the same picture; what reaches the second is so where what is smooth
agrees to the third. Each pair found so among 4,400 published photographs shows one animal twice; others in one pose
reach 0.59, and drawn moths of one outline on different grounds 0.64, but with what is smooth only 0.80. Copies with a
twentieth to a fifth cut off reach at least 0.68, recoloured ones 0.99."""

_CHUNK = 128  # pairs
_MANY = 4096  # outlines

Colours = npt.NDArray[np.float64]
Look = Callable[[int], RGB]
"""Gives a picture's pixels by its index."""


@dataclass(frozen=True)
class Alike:
    """Indices of pictures that look alike, and how well the least like of the pairs that join them agree, up to 1."""

    members: list[int]
    agreement: float


def outline(luma: Image.Image) -> npt.NDArray[np.uint8]:
    """Return a picture's luma, (28, 28)."""
    return np.asarray(luma.resize((OUTLINE_SIDE, OUTLINE_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def difference_hashes(outlines: Outlines) -> npt.NDArray[np.uint64]:
    """Return the signs of each outline's horizontal gradients, 16 by 16, as bits: (N, 4).

    http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    down, across = averages(OUTLINE_SIDE, HASH_SIDE), averages(OUTLINE_SIDE, HASH_SIDE + 1)
    words = [np.zeros((0, HASH_SIDE**2 // 64), dtype=np.uint64)]
    for start in range(0, len(outlines), _MANY):
        levels = down @ outlines[start : start + _MANY].astype(np.float32) @ across.T
        rising = (levels[:, :, 1:] > levels[:, :, :-1]).reshape(len(levels), -1)
        words.append(np.packbits(rising, axis=1).view(np.uint64))
    return np.concatenate(words)


def near_duplicates(colours: Colours, outlines: Outlines, look: Look, *, turned: bool = False) -> list[Alike]:
    """Return the pictures that look alike, by mean colours (N, 3) in [0, 1], `outline` and `look`.

    With `turned`, mirror images and quarter turns count as well. A group is held together by its pairs: of three, the
    first and the last may differ more. Identical entries count as alike. Groups, and what is in them, are in the order
    of the input.
    """
    count = len(outlines)
    if count < 2:
        return []
    with threadpool_limits(1, "blas"):  # for matrices this small, threads cost more than they save
        pairs, turns = candidate_pairs(outlines, turned=turned)
        same = _nearly_equal(pairs, difference_hashes(outlines), colours) & (turns == 0)
        coarse = _agreement(pairs, turns, lambda index: outlines[index])
        worth = (coarse >= MIN_ALIGNMENT) & ~same
        close = _agreement(pairs[worth], turns[worth], lambda index: _luma(look(index)))
        sure = close >= SURE_ALIGNMENT
        open_ = np.flatnonzero((close >= MIN_CLOSE_ALIGNMENT) & ~sure)
        smooth = _agreement(pairs[worth][open_], turns[worth][open_], lambda index: _luma(look(index)), sigma=SMOOTH)
        sure[open_] = smooth >= MIN_SMOOTH_ALIGNMENT
    joined = np.concatenate([pairs[same], pairs[worth][sure]])
    return _groups(count, joined, np.concatenate([coarse[same], close[sure]]))


def _nearly_equal(pairs: Indices, words: npt.NDArray[np.uint64], colours: Colours) -> npt.NDArray[np.bool_]:
    left, right = pairs.T
    distance = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
    apart = np.abs(colours[left] - colours[right]).max(axis=1, initial=0.0)
    near: npt.NDArray[np.bool_] = (distance <= MAX_DISTANCE) & (apart <= MAX_COLOUR_DISTANCE)
    return near


def _agreement(
    pairs: Indices, turns: Indices, view: Callable[[int], npt.NDArray[np.uint8]], sigma: float = FINE
) -> npt.NDArray[np.float32]:
    """Return how well one picture of each pair lies over the other, (P,)."""
    found = [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(pairs), _CHUNK):
        some, ways = pairs[start : start + _CHUNK], turns[start : start + _CHUNK]
        left, right = (np.stack([view(index) for index in side]) for side in some.T.tolist())
        right = np.concatenate([turn(one[None], by) for one, by in zip(right, ways, strict=True)])
        found.append(alignment(left, right, sigma))
    return np.concatenate(found)


def _luma(picture: RGB) -> npt.NDArray[np.uint8]:
    luma = Image.fromarray(picture).convert("L")
    return np.asarray(luma.resize((CLOSE_SIDE, CLOSE_SIDE), Image.Resampling.BOX))


def _groups(count: int, pairs: Indices, agreement: npt.NDArray[np.float32]) -> list[Alike]:
    parent = list(range(count))
    for left, right in pairs.tolist():
        first, second = sorted((_root(parent, left), _root(parent, right)))
        parent[second] = first
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        members[_root(parent, index)].append(index)
    least: dict[int, float] = defaultdict(lambda: 1.0)
    for (left, _), value in zip(pairs.tolist(), agreement.tolist(), strict=True):
        root = _root(parent, left)
        least[root] = min(least[root], value)
    return [Alike(group, round(least[root], 2)) for root, group in members.items() if len(group) > 1]


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
