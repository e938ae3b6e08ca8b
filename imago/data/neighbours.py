"""Which of many pictures may show the same, by their hashes, without comparing each with each.

The bits of the hashes are turned into few numbers that are as independent as the pictures allow (whitening), for on
specimens in one pose most bits say the same of all. Pictures that these numbers place side by side in any of several
random orders are compared: locality-sensitive hashing by random hyperplanes, Charikar 2002,
https://doi.org/10.1145/509907.509965, with sorted neighbourhoods in place of buckets, so that the work grows with
n log n whatever the pictures are.
"""

import numpy as np
import numpy.typing as npt

MAX_DISTANCE = 30
"""Bits of 256. Copies that were only re-encoded, resized or recoloured differ by fewer, other pictures by more."""
MIN_COSINE = 0.6
"""Of whitened hashes. Copies with a tenth cut off reach more; so do, for most pictures, a few that are no copies."""

_NEAREST = 1  # candidates of a picture, beyond those within MAX_DISTANCE
_DIMENSIONS = 24
_ORDERS = 32
_KEY_BITS = 24
_WINDOW = 4
_ALL_PAIRS = 2048  # pictures up to which each is compared with each
_FEW = 256  # pictures up to which the nearest is a candidate however far it is: whitening says little yet
_CHUNK = 16384

Words = npt.NDArray[np.uint64]
"""(N, 4): 256 bits a picture."""
Pairs = npt.NDArray[np.int64]
"""(P, 2) indices, the smaller one first, sorted."""


def candidate_pairs(words: Words) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """Return the pairs worth a look, and the distance in bits of each."""
    whitened = _whitened(words)
    found = [_kept(words, whitened, left, right) for left, right in _side_by_side(whitened)]
    left, right, distance, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    _, first = np.unique(left * len(words) + right, return_index=True)
    pairs, distance, cosine = np.stack([left, right], axis=1)[first], distance[first], cosine[first]
    stays = distance <= MAX_DISTANCE
    stays[~stays] = _among_nearest(pairs[~stays], cosine[~stays])
    return pairs[stays], distance[stays]


def _whitened(words: Words) -> npt.NDArray[np.float32]:
    """Return unit vectors (N, 24). Few pictures say little of what is common to all, and are whitened less."""
    count = len(words)
    mean = sum(_bits(words[start : start + _CHUNK]).sum(axis=0) for start in range(0, count, _CHUNK)) / count
    covariance = np.zeros((256, 256))
    for start in range(0, count, _CHUNK):
        bits = _bits(words[start : start + _CHUNK]) - mean
        covariance += bits.T @ bits / count
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1][:_DIMENSIONS], directions[:, ::-1][:, :_DIMENSIONS]
    shrinkage = variances.mean() * 256 / count + 1e-6
    axes = (directions / np.sqrt(np.maximum(variances, 0) + shrinkage)).astype(np.float32)
    chunks = [(_bits(words[start : start + _CHUNK]) - mean) @ axes for start in range(0, count, _CHUNK)]
    vectors: npt.NDArray[np.float32] = np.concatenate(chunks).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return vectors


def _bits(words: Words) -> npt.NDArray[np.float32]:
    return np.unpackbits(words.view(np.uint8), axis=1).astype(np.float32)


def _side_by_side(whitened: npt.NDArray[np.float32]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    count = len(whitened)
    if count <= _ALL_PAIRS:
        left, right = np.triu_indices(count, k=1)
        return [(left, right)]
    rng = np.random.default_rng(0)
    powers = 1 << np.arange(_KEY_BITS, dtype=np.int64)
    found = []
    for _ in range(_ORDERS):
        planes = rng.standard_normal((whitened.shape[1], _KEY_BITS)).astype(np.float32)
        order = np.argsort((whitened @ planes > 0) @ powers, kind="stable")
        for step in range(1, _WINDOW + 1):
            ends = np.stack([order[:-step], order[step:]])
            found.append((ends.min(axis=0), ends.max(axis=0)))
    return found


def _kept(
    words: Words,
    whitened: npt.NDArray[np.float32],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], ...]:
    distance = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
    cosine = np.einsum("ij,ij->i", whitened[left], whitened[right])
    least = MIN_COSINE if len(words) > _FEW else -1.0
    stays = (distance <= MAX_DISTANCE) | (cosine >= least)
    return left[stays], right[stays], distance[stays], cosine[stays]


def _among_nearest(pairs: Pairs, cosine: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell which pairs are among the nearest of either of the two."""
    ends = pairs.T.ravel()
    places = np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((places, -cosine[places], ends))
    ends, places = ends[order], places[order]
    first = np.searchsorted(ends, ends)  # of each picture's run
    stays = np.zeros(len(pairs), dtype=bool)
    stays[places[np.arange(len(ends)) - first < _NEAREST]] = True
    return stays
