"""No training is lost: neither to a killed run nor to a store that is full, when the same command is given again."""

import signal
from pathlib import Path

import pytest

from tests.waiting import until
from tests.workspace import TINY, Workspace

pytestmark = pytest.mark.slow

COMMAND = (
    *("--pipeline", "training", "--config", "demo", "--json", *TINY),
    *("--set", "training.epochs=12", "--set", "data.image_size=32", "--set", "deploy.enabled=false"),
    *("--set", "data.synthetic.species=3", "--set", "data.synthetic.per_class_train=60"),
    *("--set", "gate.min_accuracy=0.0", "--set", "gate.max_calibration_error=1.0"),
    *("--set", "evaluation.robustness=false", "--set", "evaluation.bootstrap_samples=0"),
)
TIMED = {"latency_ms": 0.0, "memory_bytes": 0.0}
"""What is measured of the machine, not of the model."""


def test_a_killed_run_goes_on_and_ends_with_the_metrics_of_one_that_was_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "killed.log"
    run = workspace.start(log, *COMMAND)
    until(lambda: "epoch 3:" in log.read_text() or run.poll() is not None, 240, log.read_text)
    workspace.kill()
    assert run.wait(10) == -signal.SIGKILL
    assert "epoch 12:" not in log.read_text()
    again = workspace.run(*COMMAND)
    assert again.code == 0, again.stderr
    assert "going on after epoch" in again.stderr
    assert "epoch 1:" not in again.stderr
    assert "epoch 12:" in again.stderr
    whole = workspace.run(*COMMAND, "--no-cache")
    assert whole.code == 0, whole.stderr
    assert "going on" not in whole.stderr
    assert "epoch 1:" in whole.stderr
    metrics, expected = ({**outcome.json["metrics"], **TIMED} for outcome in (again, whole))
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert metrics["test_accuracy"] > 0.9


def test_a_store_that_cannot_take_the_model_costs_no_training(workspace: Workspace) -> None:
    other = (*COMMAND, "--set", "seed=1")
    materializer = workspace.code / "materializers" / "model_package.py"
    whole = materializer.read_text(encoding="utf-8")
    full = whole.replace("save_folder(data.path, self.uri)", "raise OSError(28, 'No space left')")
    assert full != whole
    materializer.write_text(full, encoding="utf-8")
    failed = workspace.run(*other)
    materializer.write_text(whole, encoding="utf-8")
    assert failed.code == 1
    assert "No space left" in failed.stderr
    assert "epoch 12:" in failed.stderr
    again = workspace.run(*other)
    assert again.code == 0, again.stderr
    assert "done before, after epoch 12 of 12: its weights are taken" in again.stderr
    assert list((workspace.folder / "home" / "training").iterdir()) == []
