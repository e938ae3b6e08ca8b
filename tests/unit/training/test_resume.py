"""A training that was killed goes on, and ends as one that was not."""

import gc
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from imago.config import ModelConfig, TrainingConfig
from imago.errors import ImagoError
from imago.history import EpochResult
from imago.training.datamodule import Batch
from imago.training.epochs import CHECKPOINT, interrupted, state_of
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once
from imago.training.trainer import TrainedModel, train
from tests.unit.training.moths import ARCHITECTURE, SIZE, Silence, small_moths

EPOCHS = 4


class Deadly(Silence):
    """A reporter that kills its process as `kill -9` does: after the second step of an epoch, or when the checkpoint
    is about to take the place of the one before.
    """

    def __init__(self, moment: str, epoch: int) -> None:
        super().__init__()
        self._moment = moment
        self._stretch = f"epoch {epoch}/{EPOCHS}"

    def start(self, what: str, total: int, *, epochs_left: int = 0, last: EpochResult | None = None) -> None:
        super().start(what, total, epochs_left=epochs_left, last=last)
        if self._moment == "keeping" and what == self._stretch:
            Path.replace = lambda *_: die()  # type: ignore[method-assign]

    def advance(self, count: int = 1, loss: float | None = None) -> None:
        super().advance(count, loss)
        if self._moment == "training" and self.stretches[-1][0] == self._stretch and len(self.losses[-1]) == 2:
            die()


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


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


@pytest.mark.parametrize(
    ("moment", "epoch"), [("training", 1), ("training", 2), ("training", 3), ("keeping", 1), ("keeping", 3)]
)
def test_a_killed_training_ends_as_one_that_was_not(
    tmp_path: Path, whole: TrainedModel, moment: str, epoch: int
) -> None:
    process = get_context("fork").Process(
        target=run, args=(tmp_path,), kwargs={"reporter": Deadly(moment, epoch)}, daemon=True
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    cut = interrupted(tmp_path / CHECKPOINT, Silence())
    assert (cut.epochs if cut else 0) == epoch - 1
    assert (tmp_path / f".{CHECKPOINT}.0").exists() == (moment == "keeping")
    before = cut.spent if cut else {"cpu_seconds": 0.0, "wall_seconds": 0.0}
    reporter = Silence()
    told: list[EpochResult] = []
    begun = time.monotonic()
    again = run(tmp_path, reporter=reporter, on_epoch=told.append)
    assert tuple(told) == again.history  # those before the cut, too
    assert reporter.stretches[0][0] == f"epoch {epoch}/{EPOCHS}"
    assert (f"going on after epoch {epoch - 1} of 4" in reporter.stream.getvalue()) == (epoch > 1)
    assert [result.epoch for result in again.history] == [1, 2, 3, 4]
    for one, other in zip(again.history, whole.history, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
    assert again.best.epoch == whole.best.epoch
    states = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]
    assert again.spent is not None
    assert (before["cpu_seconds"] > 0) == (epoch > 1)
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


def test_a_training_that_goes_on_holds_the_best_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ClassifierModule.training_step
    held: list[int] = []

    def counting(self: ClassifierModule, batch: Batch, index: int) -> None:
        step(self, batch, index)
        if self.current_epoch == 3:
            gc.collect()
            shape = self.model.get_classifier().weight.shape
            tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape == shape]
            held.append(len({one.data_ptr() for one in tensors}))

    def interrupt(result: EpochResult) -> None:
        if result.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ClassifierModule, "training_step", counting)
    run(tmp_path / "uncut")
    uncut, held = held, []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", on_epoch=interrupt)
    run(tmp_path / "cut")
    assert min(uncut) >= 3  # the best, and two averages of the optimiser
    assert held == uncut


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
    assert tuple(told) == trained.history  # each once


def test_a_checkpoint_that_memory_cannot_hold_for_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, epochs=1)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def lacking(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(torch, "load", lacking)
    with pytest.raises(RuntimeError, match="allocate"):
        run(tmp_path, epochs=1)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("epoch", [1, 3])
def test_weights_that_break_in_the_last_step_of_an_epoch_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    def broken(self: ClassifierModule) -> None:
        if self.current_epoch + 1 == epoch:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(
        ClassifierModule, "on_validation_epoch_start", lambda self: (broken(self), self._outputs.clear())
    )
    with pytest.raises(
        ImagoError, match=rf"no longer a number after the last step of epoch {epoch}: lower training.learning_rate"
    ):
        run(tmp_path)
    cut = interrupted(tmp_path / CHECKPOINT, Silence())
    assert (cut.epochs if cut else 0) == epoch - 1
    assert cut is None or all(value.isfinite().all() for value in state_of(tmp_path / CHECKPOINT)["state"].values())


@pytest.mark.parametrize("options", [{"ema_decay": 0.9, "micro_batch_size": 3}, {"num_workers": 2, "batch_size": 5}])
def test_what_is_not_in_the_weights_is_gone_on_with_too(tmp_path: Path, options: dict[str, object]) -> None:
    def interrupt(result: EpochResult) -> None:
        if result.epoch == 3:
            raise KeyboardInterrupt

    uncut = run(tmp_path / "uncut", **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", on_epoch=interrupt, **options)
    again = run(tmp_path / "cut", **options)
    assert [result.val_loss for result in again.history] == [result.val_loss for result in uncut.history]
    assert [result.train_loss for result in again.history] == [result.train_loss for result in uncut.history]


@pytest.mark.parametrize("content", [b"", b"broken", b"\x80\x02X\xff", None])
def test_a_checkpoint_that_cannot_be_used_begins_anew(
    tmp_path: Path, whole: TrainedModel, content: bytes | None
) -> None:
    if content is None:
        torch.save({"another": "version"}, tmp_path / CHECKPOINT)
    else:
        (tmp_path / CHECKPOINT).write_bytes(content)
    before, reporter = (tmp_path / CHECKPOINT).read_bytes(), Silence()
    again = run(tmp_path, reporter=reporter)
    assert again.history[-1].val_loss == pytest.approx(whole.history[-1].val_loss, abs=1e-6)
    aside = tmp_path / "last.damaged"
    assert aside.read_bytes() == before
    assert f"put aside as {aside}" in reporter.stream.getvalue()


def test_a_checkpoint_with_damaged_weights_begins_anew(tmp_path: Path, whole: TrainedModel) -> None:
    run(tmp_path)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    head = next(value for value in state_of(tmp_path / CHECKPOINT)["state"].values() if value.ndim == 2)
    at = content.index(head.numpy().tobytes())
    content[at + 3] ^= 0x40  # the exponent's highest bit: torch would read a number some 1e38 times as large
    (tmp_path / CHECKPOINT).write_bytes(content)
    reporter = Silence()
    again = run(tmp_path, reporter=reporter)
    assert "put aside" in reporter.stream.getvalue()
    assert again.history[-1].val_loss == pytest.approx(whole.history[-1].val_loss, abs=1e-6)


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"epoch": Evil()}, tmp_path / CHECKPOINT)
    run(tmp_path, epochs=1)
    assert not (tmp_path / "evil").exists()
