"""Pictures that show the same without being the same file.

Two pictures are alike where their difference hashes nearly agree, or where the hashes agree roughly and so does the
fine detail of both, laid over each other. In either case their mean colours agree.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from imago.data.transforms import RGB

HASH_SIDE = 16
OUTLINE_SIDE = 40

MAX_DISTANCE, MAX_COLOUR_DISTANCE = 30, 0.04
"""Bits of 256. Copies that were re-encoded, resized or slightly cropped differ by fewer, other pictures by more."""
CLOSER_DISTANCE, CLOSER_COLOUR_DISTANCE = 80, 0.03
MIN_CORRELATION = 0.6
"""Of detail: pairs of 4,400 published photographs that show one animal twice reach more, two animals less."""

_CHUNK = 512
_SHIFT = 3
_DETAIL_SIGMA = 1.25

Colours = npt.NDArray[np.float64]
Pairs = npt.NDArray[np.int64]
"""(P, 2) indices."""


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
    hashes: Sequence[str], colours: Colours, outlines: Sequence[bytes] | None = None
) -> list[list[int]]:
    """Return groups of indices that look alike, by `difference_hash`, mean colours (N, 3) in [0, 1] and `outline`.

    Without outlines, only nearly equal hashes count. A group is held together by its pairs: of three, the first and the
    last may differ more. Identical entries count as alike. Groups, and what is in them, are in the order of the input.
    """
    if len(hashes) < 2:
        return []
    close, candidates = _pairs(hashes, colours)
    if outlines is not None and len(candidates):
        alike = candidates[_correlations(outlines, candidates) >= MIN_CORRELATION]
        close = np.concatenate([close, alike])
    parent = list(range(len(hashes)))
    for left, right in close.tolist():
        first, second = sorted((_root(parent, left), _root(parent, right)))
        parent[second] = first
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(hashes)):
        groups[_root(parent, index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _pairs(hashes: Sequence[str], colours: Colours) -> tuple[Pairs, Pairs]:
    """Return the pairs that are alike by their hashes, and those that deserve a closer look."""
    order = np.argsort(colours[:, 0], kind="stable")
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(len(hashes), -1)[order]
    colours = colours[order]
    close, candidates = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
    for start in range(0, len(hashes), _CHUNK):
        stop = min(start + _CHUNK, len(hashes))
        end = int(np.searchsorted(colours[:, 0], colours[stop - 1, 0] + MAX_COLOUR_DISTANCE, side="right"))
        distance = np.zeros((stop - start, end - start), dtype=np.uint16)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(words[start:stop, None, word] ^ words[None, start:end, word])
        left, right = np.nonzero(np.triu(distance <= CLOSER_DISTANCE, k=1))
        bits = distance[left, right]
        apart = np.abs(colours[left + start] - colours[right + start]).max(axis=1, initial=0.0)
        pairs = np.stack([order[left + start], order[right + start]], axis=1)
        sure = (bits <= MAX_DISTANCE) & (apart <= MAX_COLOUR_DISTANCE)
        close.append(pairs[sure])
        candidates.append(pairs[~sure & (apart <= CLOSER_COLOUR_DISTANCE)])
    return np.concatenate(close), np.concatenate(candidates)


def _correlations(outlines: Sequence[bytes], pairs: Pairs) -> npt.NDArray[np.float64]:
    """Return how well the detail of each pair agrees, moved by a few pixels to agree best: (P,) in [-1, 1]."""
    involved, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    luma = np.frombuffer(b"".join(outlines[index] for index in involved), dtype=np.uint8)
    levels = luma.reshape(-1, OUTLINE_SIDE, OUTLINE_SIDE).astype(np.float64)
    detail = levels - gaussian_filter(levels, sigma=(0, _DETAIL_SIGMA, _DETAIL_SIGMA))
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    detail /= np.linalg.norm(detail, axis=(1, 2), keepdims=True) + 1e-9
    spectra = np.fft.rfft2(detail, s=(OUTLINE_SIDE + _SHIFT, OUTLINE_SIDE + _SHIFT))
    near = np.arange(-_SHIFT, _SHIFT + 1)
    best = np.empty(len(pairs))
    for start in range(0, len(pairs), _CHUNK):
        left, right = places[start : start + _CHUNK].T
        shifted = np.fft.irfft2(spectra[left] * spectra[right].conj(), s=(OUTLINE_SIDE + _SHIFT, OUTLINE_SIDE + _SHIFT))
        best[start : start + _CHUNK] = shifted[:, near[:, None], near[None, :]].max(axis=(1, 2))
    return best


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
