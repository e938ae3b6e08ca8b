"""Every notebook runs from its first cell to its last, on the synthetic moths, as it would for a new user."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.workspace import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("IMAGO_DATA", "IMAGO_PACKAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))


def run(path: Path) -> list[str]:
    """Execute a notebook and return what each code cell showed, as text."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = (output.get("text") or output.get("data", {}).get("text/html", "") for output in cell.outputs)
            shown.append("\n".join(outputs))
    return shown


def test_there_are_notebooks_and_none_is_kept_with_its_outputs() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01-data-tour.ipynb", "02-error-tour.ipynb"]
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"{path.name}: clear the outputs before keeping it"


def test_the_data_tour_finds_all_four_accidents() -> None:
    shown = "\n".join(run(NOTEBOOKS[0]))
    assert "736 pictures of 8 classes" in shown
    assert "accepted - 736 of 736 accepted" in shown
    assert "accepted - 5 in quarantine" in shown
    for accident in ("notes.jpg", "broken.jpg", "leak.jpg", "again.jpg"):
        assert accident in shown
    assert shown.count("data:image/jpeg;base64,") > 40


def test_the_error_tour_shows_a_baseline_that_is_better_than_chance_and_far_from_good() -> None:
    shown = run(NOTEBOOKS[1])
    accuracy = next(text for text in shown if "right (95%" in text)
    assert 20 < float(accuracy.partition("%")[0]) < 70
    assert "chance is 12.5%" in accuracy
    assert any("taken for" in text for text in shown)


def test_the_error_tour_takes_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from imago.data.synthetic import write_folder
    from tests.packages import CLASSES, colour_dataset, make_package

    write_folder(colour_dataset(mislabelled=3), tmp_path / "colours")
    monkeypatch.setenv("IMAGO_DATA", str(tmp_path / "colours"))
    monkeypatch.setenv("IMAGO_PACKAGE", str(make_package(tmp_path / "package").path))
    shown = "\n".join(run(NOTEBOOKS[1]))
    assert f"18 test pictures of {len(CLASSES)} classes" in shown
    assert "83.3% right" in shown
    assert shown.count("<figure") == 3
