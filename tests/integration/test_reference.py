"""The reference pages say what the code says, and no document names a key that is not there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from imago.config import ChecksConfig, known_keys
from imago.data import dataset, statistics
from imago.evaluation import report
from imago.monitoring import prediction_store
from imago.serving import batch, openapi, package
from tests.workspace import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DICTIONARY = ROOT / "docs" / "references" / "data-dictionary.md"


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading of the data dictionary, without its head."""
    section = DICTIONARY.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "artifacts.md", "http.md"])
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    pages = reference().PAGES
    assert set(pages) == {"cli.md", "configuration.md", "artifacts.md", "http.md"}
    kept = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert kept == pages[name](), f"docs/reference/{name} is out of date: run `python docs/reference.py`"


def test_every_refusal_of_the_code_is_shown_by_a_route_that_gives_it() -> None:
    made = {(int(status), code) for status, codes in reference()._refusals() for code in re.findall(r"`(\w+)`", codes)}
    shown = {
        (int(status), code)
        for operations in openapi.describe("Imago", "1")["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        for code in response["content"].get("application/json", {}).get("examples", {})
    }
    assert made - {(405, "method_not_allowed")} == shown


def test_the_configuration_page_has_every_key_with_a_word_on_it() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    sections = {key.rpartition(".")[0] for key in known_keys()}
    for key in set(known_keys()) - sections:
        (row,) = re.findall(rf"^\| `{re.escape(key)}` \|.*\|$", page, re.MULTILINE)
        assert row.split(" | ")[-1].strip(" |"), f"{key} has no comment in imago/config.py"


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("Dataset", dataset.SCHEMA.names),
        ("Statistics", list(statistics.COLUMNS)),
        ("Evaluation", report.PREDICTIONS.names),
        ("Predictions", batch.SCHEMA.names),
        ("Prediction store", list(prediction_store.COLUMNS)),
        ("Shadows", list(prediction_store.SHADOW_COLUMNS)),
    ],
)
def test_the_data_dictionary_has_every_column(heading: str, columns: list[str]) -> None:
    named = [name for row in table(heading) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(columns)


def test_the_data_dictionary_has_every_check_with_its_severity() -> None:
    assert {row[0].strip("`"): row[1] for row in table("Checks")} == ChecksConfig().model_dump()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_key_that_is_named_exists(document: Path) -> None:
    keys = set(known_keys())
    sections = "|".join(sorted(key for key in keys if "." not in key))
    for key in re.findall(rf"`({sections})\.([a-z_.]+)`", document.read_text(encoding="utf-8")):
        name = ".".join(key)
        assert name in keys or name in package.FILES, f"{document.name} names {name}, which is no key"
