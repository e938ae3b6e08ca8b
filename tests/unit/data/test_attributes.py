import json
from typing import Any

from imago.data.attributes import encode_attributes

LABELS = ["a", "a", "b", "b"]


def encoded(*rows: dict[str, str], labels: list[str] = LABELS) -> list[Any]:
    return [json.loads(text) if text else None for text in encode_attributes(rows, labels)[0]]


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


def test_texts_of_one_value_and_free_texts_are_left_out_and_free_texts_are_named() -> None:
    labels = [f"{index % 5}" for index in range(42)]
    rows = [{"one": "x", "many": f"text {index // 2}", "some": f"text {index // 3}"} for index in range(42)]
    assert encoded(*rows, labels=labels)[3] == {"some": "text 1"}
    assert encode_attributes(rows, labels)[1] == ["many"]


def test_of_many_texts_the_commonest_stay_and_the_rest_are_other() -> None:
    sites = (
        [f"site {index % 30:02}" for index in range(150)] + ["site 29"] * 2 + ["site 07"] + ["once", "twice", "twice"]
    )
    found = [row["site"] for row in encoded(*({"site": site} for site in sites), labels=["a", "b"] * 78)]
    stay = {"site 29", "site 07", *(f"site {index:02}" for index in range(19) if index != 7)}
    assert len(stay) == 20
    assert found == [site if site in stay else "other" for site in sites]


def test_of_many_texts_those_that_occur_fewer_than_five_times_are_other() -> None:
    notes = ["blurred"] * 5 + ["dark"] * 4 + [f"note {index}" for index in range(30)]
    found = [row["note"] for row in encoded(*({"note": note} for note in notes), labels=["a"] * 20 + ["b"] * 19)]
    assert found == ["blurred"] * 5 + ["other"] * 34


def test_column_that_only_names_the_class_again_is_left_out() -> None:
    rows = [{"class id": "7", "family": "x"}, {"class id": "7", "family": "x"}, {"class id": "8", "family": "x"}]
    assert encoded(*rows, {"class id": "8", "family": "y"}) == [{"family": "x"}] * 3 + [{"family": "y"}]


def test_long_texts_are_cut() -> None:
    assert column("é" * 100, "b", "b", "é" * 64) == ["é" * 64, "b", "b", "é" * 64]
