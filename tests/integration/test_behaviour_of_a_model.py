"""`pytest tests/model --model … --data …` judges a model of the user's own, and names what it fails at."""

import subprocess
import sys
from pathlib import Path

import pytest

from imago.data.synthetic import write_folder
from tests.packages import CLASSES, colour_dataset, make_package
from tests.workspace import ROOT


def judge(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("confused", [False, True], ids=["good", "confused"])
def test_a_package_is_judged_by_its_test_pictures_class_by_class(tmp_path: Path, confused: bool) -> None:
    make_package(tmp_path / "package", confused=confused)
    write_folder(colour_dataset(test=8), tmp_path / "data")
    done = judge("--model", str(tmp_path / "package"), "--data", str(tmp_path / "data"))
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    case = "tests/model/test_behaviour.py::test_a_class_is_named_right"
    assert failed == ({f"{case}[{label}]" for label in CLASSES} if confused else set()), done.stdout
    assert done.returncode == int(confused)


def test_pictures_that_cannot_be_decoded_are_left_out_and_named_once(tmp_path: Path) -> None:
    make_package(tmp_path / "package")
    write_folder(colour_dataset(test=8), tmp_path / "data")
    (tmp_path / "data" / "test" / "red" / "003.png").write_bytes(b"no picture")
    (tmp_path / "data" / "test" / "blue" / "001.png").write_bytes(b"")
    done = judge("--model", str(tmp_path / "package"), "--data", str(tmp_path / "data"), "-k", "blur or class")
    assert done.returncode == 0, done.stdout
    told = "2 of 24 test pictures cannot be decoded and are left out: test/blue/001.png, test/red/003.png."
    assert done.stdout.count(told) == 1, done.stdout


def test_pictures_of_classes_that_the_model_does_not_know_are_left_out_and_these_named(tmp_path: Path) -> None:
    make_package(tmp_path / "package", classes=("blue", "red"))
    write_folder(colour_dataset(test=8), tmp_path / "data")
    done = judge("--model", str(tmp_path / "package"), "--data", str(tmp_path / "data"), "-k", "blur or class")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("8 of 24 test pictures are left out: the model does not know green.") == 1, done.stdout


def test_a_model_without_pictures_is_refused() -> None:
    done = judge("--model", "moths")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--model and --data go together" in done.stderr
