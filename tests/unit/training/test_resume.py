"""A training that was killed goes on, and ends as one that was not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imago.config import ModelConfig, TrainingConfig
from imago.history import EpochResult
from imago.training.datamodule import Batch
from imago.training.epochs import CHECKPOINT, kept_state
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once
from imago.training.trainer import TrainedModel, train
from tests.unit.training.moths import ARCHITECTURE, SIZE, Silence, small_moths

EPOCHS = 4
COMMAND = (
    "import sys, torch; torch.set_num_threads(1); from pathlib import Path; "
    "from tests.unit.training.test_resume import run; run(Path(sys.argv[1]))"
)


def run(
    workdir: Path,
    *,
    epochs: int = EPOCHS,
    reporter: Silence | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    **options: object,
) -> TrainedModel:
    return train(
        small_moths(),
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TrainingConfig.model_validate({"epochs": epochs, "batch_size": 8, **options}),
        image_size=SIZE,
        seed=0,
        workdir=workdir,
        on_epoch=on_epoch,
        reporter=reporter or Silence(),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return run(tmp_path_factory.mktemp("whole"))


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path, whole: TrainedModel) -> None:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path)])
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / CHECKPOINT).exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    reporter = Silence()
    told: list[EpochResult] = []
    before, begun = kept_state(tmp_path / CHECKPOINT)["spent"], time.monotonic()
    again = run(tmp_path, reporter=reporter, on_epoch=told.append)
    assert tuple(told) == again.history  # those before the cut, too
    assert "going on after epoch" in reporter.stream.getvalue()
    assert [result.epoch for result in again.history] == [1, 2, 3, 4]
    for one, other in zip(again.history, whole.history, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
    assert again.best.epoch == whole.best.epoch
    states = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]
    assert again.spent is not None
    assert before["cpu_seconds"] > 0
    assert again.spent.cpu_seconds > before["cpu_seconds"]
    assert 0 < again.spent.wall_seconds - before["wall_seconds"] <= time.monotonic() - begun


def test_a_training_with_less_memory_goes_on_with_the_batch_it_had_come_down_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassifierModule.training_step
    sizes: list[int] = []

    def greedy(self: ClassifierModule, batch: Batch, index: int) -> torch.Tensor:
        sizes.append(at_once(self.training_config))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, index)

    def interrupt(result: EpochResult) -> None:
        if result.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ClassifierModule, "training_step", greedy)
    uncut = run(tmp_path / "uncut", auto_batch_size=True)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", auto_batch_size=True, on_epoch=interrupt)
    sizes.clear()
    reporter = Silence()
    again = run(tmp_path / "cut", auto_batch_size=True, reporter=reporter)
    assert "going on after epoch 2" in reporter.stream.getvalue()
    assert max(sizes) == 4
    assert [result.val_loss for result in again.history] == [result.val_loss for result in uncut.history]
    states = again.model.state_dict(), uncut.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("options", [{}, {"patience": 1, "learning_rate": 1.0}])
def test_a_training_that_was_over_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    first = run(tmp_path, **options)
    assert bool(options) == (len(first.history) < EPOCHS)
    monkeypatch.setattr(ClassifierModule, "training_step", lambda *_: pytest.fail("trained again"))
    told: list[EpochResult] = []
    again = run(tmp_path, on_epoch=told.append, **options)
    assert tuple(told) == again.history == first.history
    states = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_memory_that_ends_in_a_later_epoch_costs_no_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassifierModule.training_step

    def greedy(self: ClassifierModule, batch: Batch, index: int) -> None:
        if self.current_epoch == 2 and at_once(self.training_config) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", greedy)
    told: list[EpochResult] = []
    reporter = Silence()
    trained = run(tmp_path, auto_batch_size=True, on_epoch=told.append, reporter=reporter)
    assert "going on after epoch 2 of 4" in reporter.stream.getvalue()
    assert [result.epoch for result in trained.history] == [1, 2, 3, 4]


@pytest.mark.parametrize("options", [{"ema_decay": 0.9, "micro_batch_size": 3}])
def test_averages_and_parts_of_batches_are_gone_on_with(tmp_path: Path, options: dict[str, object]) -> None:
    def interrupt(result: EpochResult) -> None:
        if result.epoch == 3:
            raise KeyboardInterrupt

    uncut = run(tmp_path / "uncut", **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", on_epoch=interrupt, **options)
    again = run(tmp_path / "cut", **options)
    assert [result.val_loss for result in again.history] == [result.val_loss for result in uncut.history]


@pytest.mark.parametrize("content", [b"", b"broken", None])
def test_a_checkpoint_that_cannot_be_used_begins_anew(
    tmp_path: Path, whole: TrainedModel, content: bytes | None
) -> None:
    if content is None:
        torch.save({"another": "version"}, tmp_path / CHECKPOINT)
    else:
        (tmp_path / CHECKPOINT).write_bytes(content)
    assert run(tmp_path).history[-1].val_loss == pytest.approx(whole.history[-1].val_loss, abs=1e-6)


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"epoch": Evil()}, tmp_path / CHECKPOINT)
    run(tmp_path, epochs=1)
    assert not (tmp_path / "evil").exists()
