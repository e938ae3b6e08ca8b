import json
from typing import Any

from imago.data.attributes import encode_attributes

LABELS = ["a", "a", "b", "b"]


def encoded(*rows: dict[str, str], labels: list[str] = LABELS) -> list[Any]:
    return [json.loads(text) if text else None for text in encode_attributes(rows, labels)]


def column(*values: str) -> list[Any]:
    return [row and row["x"] for row in encoded(*({"x": value} for value in values))]


def test_columns_of_numbers_become_numbers() -> None:
    assert column("1", "2.5", " 3e2 ", "-4") == [1.0, 2.5, 300.0, -4.0]
    assert column("1", "2.5", "many", "1") == ["1", "2.5", "many", "1"]


def test_what_is_missing_is_left_out() -> None:
    rows = [{"camera": "Nikon", "iso": "nan"}, {"camera": ""}, {"camera": "Canon", "iso": "100"}, {"iso": "200"}]
    assert encoded(*rows) == [
        {"camera": "Nikon"}, None, {"camera": "Canon", "iso": 100.0}, {"iso": 200.0},
    ]  # fmt: skip


def test_texts_of_one_value_or_of_many_are_left_out() -> None:
    labels = [f"{index % 5}" for index in range(42)]
    rows = [{"one": "x", "many": f"text {index // 2}", "some": f"text {index // 3}"} for index in range(42)]
    assert encoded(*rows, labels=labels)[3] == {"some": "text 1"}


def test_column_that_only_names_the_class_again_is_left_out() -> None:
    rows = [{"class id": "7", "family": "x"}, {"class id": "7", "family": "x"}, {"class id": "8", "family": "x"}]
    assert encoded(*rows, {"class id": "8", "family": "y"}) == [{"family": "x"}] * 3 + [{"family": "y"}]


def test_long_texts_are_cut() -> None:
    assert column("é" * 100, "b", "b", "é" * 64) == ["é" * 64, "b", "b", "é" * 64]
