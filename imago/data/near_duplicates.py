"""Pictures that show the same without being the same file: saved again, resized, recoloured, cropped.

Two pictures are alike where their difference hashes nearly agree and so do their mean colours, or where one of them,
looked at closely, lies over the other or a part of it. A hash alone is not enough: on specimens in one pose on plain
cloth it pairs hundreds of different animals.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from threadpoolctl import threadpool_limits

from imago.data.alignment import alignment
from imago.data.neighbours import MAX_DISTANCE, candidate_pairs
from imago.data.transforms import RGB

HASH_SIDE = 16
OUTLINE_SIDE = 40
CLOSE_SIDE = 64

MAX_COLOUR_DISTANCE = 0.04
MIN_ALIGNMENT = 0.55
"""Of outlines: what is below is not looked at more closely."""
MIN_CLOSE_ALIGNMENT = 0.6
"""Of pairs of 4,400 published photographs that reach it, each shows one animal twice; two animals in one pose reach
0.57. Copies of them with a twentieth to a fifth cut off reach at least 0.68, recoloured ones 0.99."""

_CHUNK = 128  # pairs

Colours = npt.NDArray[np.float64]
Look = Callable[[int], RGB]
"""Gives a picture's pixels by its index."""


def difference_hash(picture: RGB) -> str:
    """Return the 256 bits of a picture's horizontal gradients, 16 by 16, as 64 hexadecimal digits.

    http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    luma = Image.fromarray(picture).convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    levels = np.asarray(luma, dtype=np.int16)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def outline(picture: RGB) -> bytes:
    """Return a picture's luma, 40 by 40, one byte a pixel."""
    luma = Image.fromarray(picture).convert("L")
    return luma.resize((OUTLINE_SIDE, OUTLINE_SIDE), Image.Resampling.BILINEAR).tobytes()


def near_duplicate_groups(
    hashes: Sequence[str], colours: Colours, outlines: Sequence[bytes] | None = None, look: Look | None = None
) -> list[list[int]]:
    """Return groups of indices that look alike, by `difference_hash`, mean colours (N, 3) in [0, 1] and `outline`.

    Without outlines and `look`, only nearly equal hashes count. A group is held together by its pairs: of three, the
    first and the last may differ more. Identical entries count as alike. Groups, and what is in them, are in the order
    of the input.
    """
    if len(hashes) < 2:
        return []
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(len(hashes), -1)
    with threadpool_limits(1, "blas"):  # for matrices this small, threads cost more than they save
        pairs, distance = candidate_pairs(words)
        apart = np.abs(colours[pairs[:, 0]] - colours[pairs[:, 1]]).max(axis=1, initial=0.0)
        same = (distance <= MAX_DISTANCE) & (apart <= MAX_COLOUR_DISTANCE)
        alike = pairs[same]
        if outlines is not None and look is not None:
            alike = np.concatenate([alike, _aligned(pairs[~same], outlines, look)])
    parent = list(range(len(hashes)))
    for left, right in alike.tolist():
        first, second = sorted((_root(parent, left), _root(parent, right)))
        parent[second] = first
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(hashes)):
        groups[_root(parent, index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _aligned(pairs: npt.NDArray[np.int64], outlines: Sequence[bytes], look: Look) -> npt.NDArray[np.int64]:
    """Return the pairs of which one picture lies over the other: by their outlines first, then by their pixels."""

    def coarse(index: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(outlines[index], dtype=np.uint8).reshape(OUTLINE_SIDE, OUTLINE_SIDE)

    def close(index: int) -> npt.NDArray[np.uint8]:
        luma = Image.fromarray(look(index)).convert("L")
        return np.asarray(luma.resize((CLOSE_SIDE, CLOSE_SIDE), Image.Resampling.BOX))

    for view, least in ((coarse, MIN_ALIGNMENT), (close, MIN_CLOSE_ALIGNMENT)):
        kept = [np.zeros((0, 2), dtype=np.int64)]
        for start in range(0, len(pairs), _CHUNK):
            some = pairs[start : start + _CHUNK]
            left, right = (np.stack([view(index) for index in side]) for side in some.T.tolist())
            kept.append(some[alignment(left, right) >= least])
        pairs = np.concatenate(kept)
    return pairs


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
