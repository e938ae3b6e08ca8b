"""Whether the model is right everywhere, or only on average: accuracy on parts of the test pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts when they are used

from imago.data.dataset import Attributes
from imago.evaluation.metrics import Finding, Interval, wilson_interval
from imago.evaluation.significance import holm

_SMALLEST = 5
_SIGNIFICANCE = 0.05

_TERCILES = {
    "brightness": ("dark", "middling", "bright"),
    "contrast": ("flat", "middling", "contrasty"),
    "sharpness": ("soft", "middling", "sharp"),
    "pixels": ("small", "middling", "large"),
    "class size": ("rare", "middling", "frequent"),
}
_MOST_CODES = 20  # values of a whole number, to be slices one by one
_FEW_NUMBERS = 3  # which are not parted further


class Slice(Finding):
    """The test pictures that have something in common, and how many of them were answered right."""

    by: str
    value: str
    count: int
    accuracy: float
    interval: Interval
    p_value: float  # of so few right by chance, were the slice like the rest
    weak: bool  # fewer right than chance explains, the number of slices allowed for


Member = tuple[str, str, npt.NDArray[np.bool_]]
"""What parts the pictures, the part, and which pictures (N,) are in it."""


def find_slices(
    right: npt.NDArray[np.bool_],
    labels: Sequence[str],
    features: Mapping[str, npt.NDArray[np.floating]],
    attributes: Sequence[Attributes] = (),
) -> list[Slice]:
    """Return the accuracy by class, by thirds of each known feature and by what a manifest says, the weakest first.

    `features` are values (N,) by name: brightness, contrast, sharpness, pixels, class size (the number of pictures
    that it was taught with); others are left alone, and so are a feature that hardly varies and a slice of fewer than
    five pictures. Where thirds would tie, the parts are what is below, at and above the tied value. `attributes` are
    texts and numbers of each picture. A slice is weak by Fisher's exact test against the rest, Holm's correction
    applied over all slices.
    """
    names = np.asarray(labels, dtype=object)
    members: list[Member] = [("class", label, names == label) for label in sorted(set(labels))]
    for feature, words in _TERCILES.items():
        if feature in features:
            members += [(feature, word, inside) for word, inside in _thirds(features[feature], words)]
    members += [member for name in _names(attributes) for member in _by_attribute(name, attributes)]
    members = [member for member in members if _SMALLEST <= member[2].sum() < len(right)]
    p_values = [_fewer_by_chance(right, inside) for _, _, inside in members]
    weak = holm(p_values, _SIGNIFICANCE)
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


def _names(attributes: Sequence[Attributes]) -> list[str]:
    return list(dict.fromkeys(name for row in attributes for name in row))


def _by_attribute(name: str, attributes: Sequence[Attributes]) -> list[Member]:
    """Part the pictures by each value of a text, of a whole number of few values, which may be a code, or by thirds."""
    by = f"{name} (manifest)" if name in {"class", *_TERCILES} else name
    told = [row.get(name) for row in attributes]
    times = Counter(value for value in told if value is not None)
    known = sorted(times, key=str)
    numbers = [float(value) for value in known if not isinstance(value, str)]
    codes = all(number.is_integer() for number in numbers) and max(times.values()) >= _SMALLEST
    if len(numbers) == len(known) > (_MOST_CODES if codes else _FEW_NUMBERS):
        values = np.array([np.nan if value is None else value for value in told], dtype=np.float64)
        low, high = np.nanquantile(values, (1 / 3, 2 / 3))
        tied = (f"below {low:.4g}", f"{low:.4g}", f"above {low:.4g}")
        words = (f"up to {low:.4g}", f"{low:.4g} to {high:.4g}", f"above {high:.4g}") if low < high else tied
        return [(by, word, inside) for word, inside in _thirds(values, words)]
    matches = [(value, np.array([one == value for one in told])) for value in known]
    return [(by, value if isinstance(value, str) else f"{value:.12g}", inside) for value, inside in matches]


def _thirds(values: npt.NDArray[np.floating], words: tuple[str, str, str]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Part the pictures into thirds, or, where more than a third have one value, into those below, at and above it."""
    low, high = np.nanquantile(values, (1 / 3, 2 / 3))
    if low < high:
        parts = (values <= low, (values > low) & (values <= high), values > high)
    else:
        parts = (values < low, values == low, values > low)
    filled = [(word, inside) for word, inside in zip(words, parts, strict=True) if inside.any()]
    return filled if len(filled) > 1 else []


def _fewer_by_chance(right: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_]) -> float:
    return float(scipy.stats.hypergeom.cdf(right[inside].sum(), len(right), right.sum(), inside.sum()))
