"""No training is lost: neither to a killed run nor to a store that is full, when the same command is given again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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


def test_a_run_that_is_interrupted_and_killed_goes_on_and_ends_with_the_metrics_of_one_that_was_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "interrupted.log"
    run = workspace.start(log, *COMMAND)
    until(lambda: "epoch 2:" in log.read_text() or run.poll() is not None, 240, log.read_text)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, log.read_text()
    assert "error: Interrupted." in log.read_text().splitlines()[-1]
    assert "the same command goes on after the last step or epoch done" in log.read_text().splitlines()[-1]
    assert "epoch 12:" not in log.read_text()
    log = tmp_path / "killed.log"
    run = workspace.start(log, *COMMAND)
    until(lambda: "going on after epoch" in log.read_text() or run.poll() is not None, 240, log.read_text)
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


@pytest.mark.parametrize(
    ("seed", "file", "line", "said"),
    [
        (1, "materializers/model_package.py", "save_folder(data.path, self.uri)", "done before, after epoch 12 of 12"),
        (2, "steps/evaluate_model.py", "report = evaluate(", "train_model: cached"),
    ],
)
def test_what_fails_after_training_costs_no_training(
    workspace: Workspace, seed: int, file: str, line: str, said: str
) -> None:
    command = (*COMMAND, "--set", f"seed={seed}")
    with failing(workspace.code / file, line):
        failed = workspace.run(*command)
    assert failed.code == 1
    assert "The disk is full" in failed.stderr
    assert "epoch 12:" in failed.stderr
    another = workspace.run(*COMMAND, "--set", "seed=3", "--set", "training.epochs=1")
    assert another.code == 0, another.stderr
    kept = workspace.folder / "home" / "training"
    assert len(list(kept.iterdir())) == 1
    again = workspace.run(*command)
    assert again.code == 0, again.stderr
    assert said in again.stderr
    assert "epoch 12:" not in again.stderr
    assert list(kept.iterdir()) == []


@contextmanager
def failing(file: Path, line: str) -> Iterator[None]:
    """Let a line of code find the disk full, for a while."""
    whole = file.read_text(encoding="utf-8")
    assert line in whole
    file.write_text(whole.replace(line, f"raise OSError(28, 'No space left')  # {line}"), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(whole, encoding="utf-8")
