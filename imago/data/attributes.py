"""What a manifest says of its pictures besides path, label and split: columns that tell parts of the pictures apart."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from imago.data.dataset import Attributes

MOST_COLUMNS = 16
MOST_VALUES = 20  # of a column of texts, besides OTHER
LEAST_TIMES = 5  # that a value of a column of more texts must occur, to stay
OTHER = "other"
LONGEST = 64  # characters of a name or a text
_MISSING = {"", "nan"}


def encode_attributes(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Return each row's columns as a JSON object, or None for a row that says nothing, and the columns of free texts.

    Kept are columns of at least two numbers, or texts. Of more than 20 texts the commonest 20 that occur five times
    stay, and the rest become `other`; free texts, none of which occurs so often, are left out. So is a column that
    gives each class a value of its own, as its number or its Latin name, for it says no more than the label.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    kept: list[Attributes] = [{} for _ in rows]
    free: list[str] = []
    for name in names:
        values = [_cut(row.get(name, "")) for row in rows]
        told = {value for value in values if value is not None}
        numbers = {value: number for value in told if (number := _number(value)) is not None}
        another_label = len(set(zip(labels, values, strict=True))) == len(set(values)) == len(set(labels))
        if len(told) < 2 or another_label:
            continue
        said: Mapping[str, str | float] = numbers if len(numbers) == len(told) else _texts(values)
        if not said:
            free.append(name)
            continue
        for attributes, value in zip(kept, values, strict=True):
            if value is not None:
                attributes[name] = said[value]
    return [json.dumps(attributes, ensure_ascii=False) if attributes else None for attributes in kept], free


def _texts(values: Sequence[str | None]) -> dict[str, str]:
    """Return what each text of a column is called: itself, or `other`; nothing for free texts."""
    times = Counter(value for value in values if value is not None)
    if len(times) <= MOST_VALUES:
        return {value: value for value in times}
    commonest = sorted(times, key=lambda value: (-times[value], value))[:MOST_VALUES]
    stay = {value for value in commonest if times[value] >= LEAST_TIMES}
    return {value: value if value in stay else OTHER for value in times} if stay else {}


def _cut(text: str) -> str | None:
    value = text.strip()[:LONGEST]
    return None if value.casefold() in _MISSING else value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
