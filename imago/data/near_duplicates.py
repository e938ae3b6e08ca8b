"""Pictures that show the same without being the same file: found by difference hash and mean colour."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.data.transforms import RGB

HASH_SIDE = 16
MAX_DISTANCE = 30
"""Bits of 256. Copies that were re-encoded, resized or slightly cropped differ by fewer, other pictures by more."""
MAX_COLOUR_DISTANCE = 0.04

_CHUNK = 512

Colours = npt.NDArray[np.float64]


def difference_hash(picture: RGB) -> str:
    """Return the 256 bits of a picture's horizontal gradients, 16 by 16, as 64 hexadecimal digits.

    http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    luma = Image.fromarray(picture).convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    levels = np.asarray(luma, dtype=np.int16)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def near_duplicate_groups(
    hashes: Sequence[str],
    colours: Colours,
    *,
    max_distance: int = MAX_DISTANCE,
    max_colour_distance: float = MAX_COLOUR_DISTANCE,
) -> list[list[int]]:
    """Return groups of indices that look alike, by `difference_hash` and mean colours (N, 3) in [0, 1].

    A group is held together by its pairs: of three, the first and the last may differ more than the limits. Identical
    entries count as alike. The order of the groups and within them is that of the input.
    """
    if len(hashes) < 2:
        return []
    order = np.argsort(colours[:, 0], kind="stable")
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(len(hashes), -1)[order]
    sorted_colours = colours[order]
    parent = np.arange(len(hashes))
    for start in range(0, len(hashes), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(hashes)))
        reach = sorted_colours[rows, 0].max() + max_colour_distance
        end = int(np.searchsorted(sorted_colours[:, 0], reach, side="right"))
        for left, right in _alike(words, sorted_colours, rows, end, max_distance, max_colour_distance):
            _join(parent, int(order[left]), int(order[right]))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(hashes)):
        groups[_root(parent, index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _alike(
    words: npt.NDArray[np.uint64],
    colours: Colours,
    rows: slice,
    end: int,
    max_distance: int,
    max_colour_distance: float,
) -> npt.NDArray[np.int64]:
    distance = np.zeros((rows.stop - rows.start, end - rows.start), dtype=np.uint16)
    for word in range(words.shape[1]):
        distance += np.bitwise_count(words[rows, None, word] ^ words[None, rows.start : end, word])
    left, right = np.nonzero(distance <= max_distance)
    left, right = left + rows.start, right + rows.start
    apart = np.abs(colours[left] - colours[right]).max(axis=1, initial=0.0)
    pairs = np.stack([left, right], axis=1)
    close: npt.NDArray[np.int64] = pairs[(left < right) & (apart <= max_colour_distance)]
    return close


def _root(parent: npt.NDArray[np.int64], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _join(parent: npt.NDArray[np.int64], left: int, right: int) -> None:
    first, second = sorted((_root(parent, left), _root(parent, right)))
    parent[second] = first
