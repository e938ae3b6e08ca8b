"""Every defect that is planted is found, and nothing else; `python -m tests.planted` shows the table."""

import os
import shutil
from pathlib import Path

import pytest

from imago.config import ChecksConfig, DataConfig, SyntheticConfig
from imago.data.sources import load_dataset
from imago.data.statistics import compute_statistics
from imago.data.synthetic import synthetic_dataset, write_folder
from imago.data.validation import ValidationResult, validate
from tests.planted import Found, another_camera, named, plant
from tests.workspace import ROOT

OTHERS = {"split_outlier", "version_shift"}
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "moths20"


def check(root: Path, previous: Path | None = None) -> ValidationResult:
    config = DataConfig(source=str(root))
    dataset = load_dataset(config, 0)
    before = compute_statistics(load_dataset(DataConfig(source=str(previous)), 0)) if previous else None
    return validate(dataset, compute_statistics(dataset), config, before)


def found(result: ValidationResult) -> dict[str, Found]:
    return {check["id"]: named(check) for check in result.to_json()["checks"] if check["count"]}


@pytest.fixture(scope="module")
def moths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted") / "moths"
    counts = SyntheticConfig(species=10, per_class_train=32, per_class_val=5, per_class_test=6)
    write_folder(synthetic_dataset(counts, 112, seed=11), root)
    return root


def test_clean_pictures_are_accepted_without_a_word(moths: Path) -> None:
    result = check(moths)
    assert result.verdict == "accepted"
    assert found(result) == {}


def test_all_that_is_planted_is_found_and_nothing_else(moths: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(moths, tmp_path / "moths"))
    planted = plant(copy)
    assert set(planted) == set(ChecksConfig.model_fields) - OTHERS
    result = check(copy)
    assert result.verdict == "refused"
    assert found(result) == planted
    files = sum(len(names) for _, _, names in os.walk(copy))
    assert result.accepted + len(result.quarantined) == result.found == files
    assert not any(name.startswith("test/") for name in result.quarantined)


def test_a_split_from_another_camera_and_a_version_unlike_the_last_are_found(moths: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(moths, tmp_path / "moths"))
    another_camera(copy / "val")
    assert set(found(check(copy, previous=moths))) == {"split_outlier"}
    another_camera(copy / "train")
    assert "version_shift" in found(check(copy, previous=moths))


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"there are no photographs at {PHOTOGRAPHS}")
def test_all_that_is_planted_among_photographs_is_found_and_nothing_else(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(PHOTOGRAPHS, tmp_path / "moths", copy_function=shutil.copyfile))
    for folder, _, _ in os.walk(copy):
        Path(folder).chmod(0o755)
    before = found(check(copy))
    planted = plant(copy)
    after = found(check(copy))
    for name in ChecksConfig.model_fields:
        assert after.get(name, set()) - before.get(name, set()) == planted.get(name, set()), name
