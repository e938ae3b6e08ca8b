"""The table of faults names tests that are there."""

import ast
import re

import pytest

from tests.workspace import ROOT

TABLE = (ROOT / "docs" / "references" / "faults.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("| ")]
HELD = [row[-1].strip("`") for row in ROWS if row[-1] != "held by"]


def functions_of(module: str) -> set[str]:
    (file,) = (ROOT / "tests").rglob(f"{module}.py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_fault_what_happens_and_a_test() -> None:
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {3}
    assert all(re.fullmatch(r"test_\w+::test_\w+", held) for held in HELD)


@pytest.mark.parametrize("held", sorted(set(HELD)))
def test_the_test_that_holds_a_row_is_there(held: str) -> None:
    module, _, name = held.partition("::")
    assert name in functions_of(module)
