"""The next version of a source's data is compared with the one that was last accepted."""

from pathlib import Path

import pytest

from imago.config import DataConfig
from imago.data.accepted import last_accepted, remember
from imago.data.class_checks import version_shift
from imago.data.sources import load_dataset
from imago.data.statistics import PictureTable, compute_statistics
from tests.unit.data.pictures import write_classes


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))


def table_of(root: Path) -> PictureTable:
    return compute_statistics(load_dataset(DataConfig(source=str(root)), 0))


def sentence(root: Path) -> str:
    return version_shift(table_of(root), last_accepted(DataConfig(source=str(root)))).sentence


def test_a_class_that_came_and_one_that_went_are_named(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "moths", {"atlas": 12, "io": 12})
    assert sentence(root) == "There is no earlier version to compare with."
    remember(DataConfig(source=str(root)), table_of(root))
    assert sentence(root) == "The pictures look like those of the earlier version."
    (root / "io").rename(root / "luna")
    assert "new classes 'luna'" in sentence(root)
    assert "no longer there 'io'" in sentence(root)
    remember(DataConfig(source=str(root)), table_of(root))
    assert sentence(root) == "The pictures look like those of the earlier version."


def test_each_source_has_an_earlier_version_of_its_own(tmp_path: Path) -> None:
    one, other = (write_classes(tmp_path / name, {"atlas": 12, "io": 12}) for name in ("one", "other"))
    remember(DataConfig(source=str(one)), table_of(one))
    assert last_accepted(DataConfig(source=str(other))) is None
    assert last_accepted(DataConfig()) is None
