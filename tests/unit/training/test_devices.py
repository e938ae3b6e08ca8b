"""Processes that train together share the pictures out, and learn what one process would."""

import os
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from imago.config import ModelConfig, TrainingConfig
from imago.errors import ImagoError
from imago.history import EpochResult
from imago.training.datamodule import Batch
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once
from imago.training.trainer import TrainedModel, train
from tests.unit.training import reads
from tests.unit.training.moths import SIZE, Silence, plain_pictures

ARCHITECTURE = "test_vit"  # without batch norm, whose statistics each process would take of its own pictures
EPOCHS = 4
PICTURES = plain_pictures(train=12, val=5)  # 24 and 10, of two colours


def _train(folder: Path, told: list[EpochResult] | None = None, **options: object) -> TrainedModel:
    return train(
        PICTURES,
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TrainingConfig.model_validate({"epochs": EPOCHS, "label_smoothing": 0, **options}),
        image_size=SIZE,
        seed=0,
        workdir=Path(mkdtemp(dir=folder)),
        on_epoch=None if told is None else told.append,
        reporter=Silence(),
    )


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_two_processes_learn_what_one_does(tmp_path: Path, ema_decay: float) -> None:
    told: list[EpochResult] = []
    two = _train(tmp_path, told, batch_size=4, devices=2, ema_decay=ema_decay)
    one = _train(tmp_path, batch_size=8, ema_decay=ema_decay)
    assert [result.epoch for result in two.history] == list(range(1, EPOCHS + 1))
    assert tuple(told) == two.history
    assert one.history[0].train_loss > 0.5
    assert one.history[-1].train_loss < 0.1
    assert one.history[-1].val_loss < one.history[0].val_loss / 2
    for ours, theirs in zip(two.history, one.history, strict=True):  # but for the order in which floats are added
        assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-3)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-3)
    states = two.model.state_dict(), one.model.state_dict()
    assert all(torch.allclose(value, states[1][name], atol=1e-3) for name, value in states[0].items())
    assert one.spent is not None
    assert two.spent is not None
    assert two.spent.cpu_seconds > one.spent.cpu_seconds / 2  # what the two computed is counted here


def test_two_processes_draw_every_picture_once_an_epoch_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.written_to(tmp_path / "reads", monkeypatch)
    _train(tmp_path, batch_size=4, devices=2)
    shares = []
    for epoch in range(EPOCHS):
        drawn = reads.read_from(tmp_path / "reads", "train", epoch)
        assert os.getpid() not in drawn
        first, second = (frozenset(indices) for _, indices in sorted(drawn.items()))
        assert first.isdisjoint(second)
        assert len(first) == len(second) == 12
        assert Counter(index for indices in drawn.values() for index in indices) == Counter(range(24))
        shares.append({first, second})
    assert shares[0] != shares[1]  # shared out anew in each epoch
    judged = reads.read_from(tmp_path / "reads", "val", 0)
    judged.pop(os.getpid())  # the temperature is fitted afterwards, by this process alone
    assert sorted(tuple(indices) for indices in judged.values()) == [
        tuple(range(first, 10, 2)) * EPOCHS for first in range(2)
    ]


def test_what_a_process_raises_comes_out_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ImagoError, match="no longer a number in step") as raised:
        _train(tmp_path, batch_size=4, devices=2, learning_rate=1e30)
    assert type(raised.value) is ImagoError


def test_what_nobody_foresaw_in_a_process_comes_out_with_its_traceback_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassifierModule, "training_step", lambda *_: 1 // 0)
    with pytest.raises(ProcessRaisedException, match="ZeroDivisionError") as raised:
        _train(tmp_path, batch_size=4, devices=2)
    assert raised.value.__cause__ is None


def test_a_lack_of_memory_in_one_of_two_processes_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassifierModule.training_step

    def greedy(self: ClassifierModule, batch: Batch, index: int) -> None:
        if at_once(self.training_config) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", greedy)
    with pytest.raises(ImagoError, match=r"Memory does not do for 4 .* set training.micro_batch_size=2"):
        _train(tmp_path, batch_size=4, devices=2)
    assert len(_train(tmp_path, batch_size=4, devices=2, auto_batch_size=True).history) == EPOCHS
