"""Processes that train together share the pictures out, and learn what one process would."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import ProcessRaisedException

from imago.config import ModelConfig, TrainingConfig
from imago.errors import ConfigError, ImagoError
from imago.history import EpochResult
from imago.training.classifier import create_classifier
from imago.training.datamodule import Batch
from imago.training.devices import check_devices
from imago.training.epochs import CHECKPOINT
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once
from imago.training.trainer import TrainedModel, train
from tests.unit.training import node, reads
from tests.unit.training.moths import SIZE, Silence, plain_pictures
from tests.workspace import ROOT, free_port

ARCHITECTURE = "test_vit"  # without batch norm, whose statistics each process would take of its own pictures
EPOCHS = 4
PICTURES = plain_pictures(train=12, val=5)  # 24 and 10, of two colours


def _train(
    folder: Path, told: list[EpochResult] | None = None, weights: str = "none", **options: object
) -> TrainedModel:
    return train(
        PICTURES,
        ModelConfig(architecture=ARCHITECTURE, weights=weights),
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


@pytest.mark.timeout(120)
def test_processes_are_forked_from_one_that_has_used_its_threads_and_fits_the_head_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = create_classifier(ARCHITECTURE, "none", 2, SIZE)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as on a machine with two cores for each of the processes
    torch.set_num_threads(2)
    try:
        trained = _train(tmp_path, batch_size=4, devices=2, weights=str(tmp_path / "weights.safetensors"))
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("2", 2)
    finally:
        torch.set_num_threads(1)
    assert [result.epoch for result in trained.history] == list(range(EPOCHS + 1))  # the head alone, and four
    assert trained.history[-1].train_loss < 0.1


def test_a_process_that_the_kernel_kills_is_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassifierModule, "training_step", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ImagoError, match=r"was killed, most likely .* not do for 4 .* set training.micro_batch_size=2"):
        _train(tmp_path, batch_size=4, devices=2)


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


def test_two_nodes_end_with_the_model_that_one_ends_with(tmp_path: Path) -> None:
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "tests.unit.training.node")
    folders = [tmp_path / "first", tmp_path / "second"]
    nodes = [
        subprocess.Popen([*command, folder], cwd=ROOT, env={**shared, "NODE_RANK": str(rank)})
        for rank, folder in enumerate(folders)
    ]
    try:
        assert [process.wait(120) for process in nodes] == [0, 0]
    finally:
        for process in nodes:
            process.kill()
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    facts, of_second = (json.loads((folder / "facts.json").read_text()) for folder in folders)
    assert facts == of_second
    assert {file.name for file in folders[1].iterdir()} == {CHECKPOINT, "facts.json", "model.safetensors"}
    one = _train(tmp_path, **{**node.CONFIG, "nodes": 1, "batch_size": 8})
    assert facts["val_losses"] == pytest.approx([result.val_loss for result in one.history], abs=1e-3)
    assert facts["temperature"] == pytest.approx(one.temperature, rel=1e-2)
    assert all(torch.allclose(value, first[name], atol=1e-3) for name, value in one.model.state_dict().items())


def test_nodes_that_would_go_on_after_different_epochs_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imago.training.epochs.of_all", lambda mine: [*mine, 3])
    with pytest.raises(ImagoError, match=r"go on after different epochs, \[0, 3\]: copy .*last.ckpt"):
        _train(tmp_path)


def test_a_strategy_that_lightning_would_launch_anew_is_forked(tmp_path: Path) -> None:
    told: list[EpochResult] = []
    named = "ddp_find_unused_parameters_true"
    assert len(_train(tmp_path, told, batch_size=4, devices=2, strategy=named).history) == EPOCHS
    assert len(told) == EPOCHS
    assert len(_train(tmp_path, strategy="ddp").history) == EPOCHS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "dpp"}, r"Lightning knows no 'dpp'\. Did you mean 'ddp'"),
        ({"strategy": "fsdp"}, "'fsdp' are not started by fork: take auto or ddp"),
        ({"strategy": "deepspeed_stage_2"}, "'deepspeed_stage_2' are not started by fork"),
        ({"strategy": "ddp_spawn", "devices": 2}, "'ddp_spawn' are not started by fork"),
        ({"devices": 3}, r"training\.devices is 3, and this machine has 2 GPUs"),
    ],
)
def test_devices_that_cannot_be_had_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("imago.training.trainer.create_classifier", lambda *_: pytest.fail("begun"))
    with pytest.raises(ConfigError, match=said):
        _train(tmp_path, **options)


def test_more_processes_than_a_split_has_pictures_are_refused_before_they_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.devices: 1000 processes cannot share \d+ train pictures"):
        _train(tmp_path, devices=1000)


def test_as_many_processes_as_asked_for_train_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    check_devices(TrainingConfig(devices=3))
