"""Whether the model is right everywhere, or only on average: accuracy on parts of the test pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used

from imago.evaluation.metrics import Finding, Interval, wilson_interval

_SMALLEST = 5
_SIGNIFICANCE = 0.05

_TERCILES = {
    "brightness": ("dark", "middling", "bright"),
    "contrast": ("flat", "middling", "contrasty"),
    "sharpness": ("soft", "middling", "sharp"),
    "pixels": ("small", "middling", "large"),
}


class Slice(Finding):
    """The test pictures that have something in common, and how many of them were answered right."""

    by: str
    value: str
    count: int
    accuracy: float
    interval: Interval
    p_value: float  # of so few right by chance, were the slice like the rest
    weak: bool  # fewer right than chance explains, the number of slices allowed for


def find_slices(
    right: npt.NDArray[np.bool_], labels: Sequence[str], features: Mapping[str, npt.NDArray[np.floating]]
) -> list[Slice]:
    """Return the accuracy by class and by thirds of each known feature, the weakest first.

    `features` are values (N,) by name: brightness, contrast, sharpness, pixels; others are left alone, and so are a
    feature that hardly varies and a slice of fewer than five pictures. A slice is weak by Fisher's exact test against
    the rest, Holm's correction applied over all slices.
    """
    members: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    names = np.asarray(labels, dtype=object)
    members += [("class", label, names == label) for label in sorted(set(labels))]
    for feature, words in _TERCILES.items():
        if feature in features:
            members += [(feature, word, inside) for word, inside in _thirds(features[feature], words)]
    members = [member for member in members if _SMALLEST <= member[2].sum() < len(right)]
    p_values = [_fewer_by_chance(right, inside) for _, _, inside in members]
    weak = _holm(p_values)
    slices = [
        Slice(
            by=by,
            value=value,
            count=int(inside.sum()),
            accuracy=float(right[inside].mean()),
            interval=wilson_interval(int(right[inside].sum()), int(inside.sum())),
            p_value=p_value,
            weak=is_weak,
        )
        for (by, value, inside), p_value, is_weak in zip(members, p_values, weak, strict=True)
    ]
    return sorted(slices, key=lambda entry: (not entry.weak, entry.accuracy, entry.by, entry.value))


def _thirds(values: npt.NDArray[np.floating], words: tuple[str, ...]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    if not low < high:
        return []
    return [(words[0], values <= low), (words[1], (values > low) & (values <= high)), (words[2], values > high)]


def _fewer_by_chance(right: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_]) -> float:
    return float(scipy.stats.hypergeom.cdf(right[inside].sum(), len(right), right.sum(), inside.sum()))


def _holm(p_values: Sequence[float]) -> list[bool]:
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        if p_values[index] > _SIGNIFICANCE / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
