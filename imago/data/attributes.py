"""What a manifest says of its pictures besides path, label and split: columns that tell parts of the pictures apart."""

import json
import math
from collections.abc import Mapping, Sequence

from imago.data.dataset import Attributes

MOST_COLUMNS = 16
MOST_VALUES = 20  # of a column of texts
LONGEST = 64  # characters of a name or a text
_MISSING = {"", "nan"}


def encode_attributes(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> list[str | None]:
    """Return each row's columns as a JSON object, or None for a row that says nothing.

    Kept are columns of numbers, and of texts with 2 to 20 values. A column that gives each class a value of its own,
    as its number or its Latin name, says no more than the label, and is left out.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    kept: list[Attributes] = [{} for _ in rows]
    for name in names:
        values = [_cut(row.get(name, "")) for row in rows]
        told = {value for value in values if value is not None}
        numbers = {value: number for value in told if (number := _number(value)) is not None}
        numeric = len(numbers) == len(told)
        another_label = len(set(zip(labels, values, strict=True))) == len(set(values)) == len(set(labels))
        if len(told) < 2 or another_label or (not numeric and len(told) > MOST_VALUES):
            continue
        for attributes, value in zip(kept, values, strict=True):
            if value is not None:
                attributes[name] = numbers[value] if numeric else value
    return [json.dumps(attributes, ensure_ascii=False) if attributes else None for attributes in kept]


def _cut(text: str) -> str | None:
    value = text.strip()[:LONGEST]
    return None if value.casefold() in _MISSING else value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
