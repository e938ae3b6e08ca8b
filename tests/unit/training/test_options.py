"""Keys of training that say how it runs, not what is learned, do what they say."""

import os
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from torch._dynamo.utils import counters

from imago.config import ModelConfig, TrainingConfig
from imago.training.trainer import TrainedModel, train
from tests.unit.training import reads
from tests.unit.training.moths import SIZE, Silence, plain_pictures

PICTURES = plain_pictures(train=8, val=4)


def _train(folder: Path, **options: object) -> TrainedModel:
    return train(
        PICTURES,
        ModelConfig(architecture="test_vit", weights="none"),
        TrainingConfig.model_validate({"epochs": 2, "batch_size": 8, **options}),
        image_size=SIZE,
        seed=0,
        workdir=Path(mkdtemp(dir=folder)),
        reporter=Silence(),
    )


def _losses(trained: TrainedModel) -> list[float]:
    return [loss for result in trained.history for loss in (result.train_loss, result.val_loss)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return _train(tmp_path_factory.mktemp("plain"))


def test_workers_load_the_pictures_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: TrainedModel
) -> None:
    reads.written_to(tmp_path / "reads", monkeypatch)
    loaded = _train(tmp_path, num_workers=2)
    for epoch in range(2):
        drawn = reads.read_from(tmp_path / "reads", "train", epoch)
        assert len(drawn) == 2
        assert os.getpid() not in drawn
        assert sorted(index for indices in drawn.values() for index in indices) == list(range(16))
    assert _losses(loaded) == _losses(plain)
    states = loaded.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_mixed_precision_learns_nearly_the_same_in_other_numbers(tmp_path: Path, plain: TrainedModel) -> None:
    mixed = _train(tmp_path, precision="bf16-mixed")
    assert _losses(mixed) != _losses(plain)
    assert _losses(mixed) == pytest.approx(_losses(plain), abs=0.01)
    assert _losses(mixed)[-1] < _losses(mixed)[1]
    assert {value.dtype for value in mixed.model.parameters()} == {torch.float32}


def test_a_compiled_network_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: TrainedModel
) -> None:
    # its graphs are captured and run; that machine code is made of them is torch's own affair, and takes a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    compiled = _train(tmp_path, compile=True)
    assert counters["stats"]["unique_graphs"] >= 2  # to train, and to judge
    assert _losses(compiled) == pytest.approx(_losses(plain), abs=1e-4)


def test_patience_looks_at_what_is_monitored(tmp_path: Path) -> None:
    by_accuracy = _train(tmp_path, epochs=6, learning_rate=1e-3, patience=2, monitor="val_accuracy")
    by_loss = _train(tmp_path, epochs=6, learning_rate=1e-3, patience=2, monitor="val_loss")
    assert [result.val_accuracy for result in by_accuracy.history] == [1.0, 1.0, 1.0]  # no better than the first
    losses = [result.val_loss for result in by_loss.history]
    assert len(losses) == 6
    assert losses == sorted(losses, reverse=True)


def test_training_stops_where_the_monitored_loss_rises(tmp_path: Path) -> None:
    stopped = _train(tmp_path, epochs=8, learning_rate=0.3, patience=1, monitor="val_loss")
    *falling, last = [result.val_loss for result in stopped.history]
    assert 1 <= len(falling) < 7
    assert falling == sorted(falling, reverse=True)
    assert last >= falling[-1]
