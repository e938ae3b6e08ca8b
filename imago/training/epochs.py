"""What an epoch leaves: its figures, the best weights so far, and a checkpoint to go on from."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from imago.allocator import hand_back
from imago.config import TrainingConfig
from imago.errors import ImagoError
from imago.history import EpochResult
from imago.progress import Reporter
from imago.training.checkpoint import UNREADABLE
from imago.training.datamodule import Batch, EvenBatches
from imago.training.devices import of_all
from imago.training.meter import Meter
from imago.training.module import ClassifierModule
from imago.training.recipe import lower_rates
from imago.training.shortage import is_lack_of_memory

CHECKPOINT = "last.ckpt"


class Best:
    """Remembers every epoch, and the weights of the best: the highest accuracy, then the lowest loss."""

    def __init__(self, reporting: Reporter, on_epoch: Callable[[EpochResult], None] | None) -> None:
        self._reporting = reporting
        self.on_epoch = on_epoch
        self.history: list[EpochResult] = []
        self.state: dict[str, torch.Tensor] = {}
        self.result = EpochResult(-1, float("nan"), float("inf"), -1.0, 0.0)

    def offer(self, result: EpochResult, model: nn.Module, *, tell: bool = True) -> None:
        self.history.append(result)
        if (result.val_accuracy, -result.val_loss) >= (self.result.val_accuracy, -self.result.val_loss):
            self.result = result
            self.state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        if not tell:
            return
        self._reporting.epoch(result)
        if self.on_epoch is not None:
            self.on_epoch(result)

    def restore(self, history: list[EpochResult], result: EpochResult, state: dict[str, torch.Tensor]) -> None:
        """Go on from what another process remembered, whose epochs `on_epoch` has not been told of here."""
        self.history, self.result, self.state = history, result, state
        if self.on_epoch is not None:
            for one in history:
                self.on_epoch(one)


class Epochs(Callback):
    """Tells of every step, offers every epoch's weights, and keeps a checkpoint after each to go on from."""

    def __init__(
        self, best: Best, reporting: Reporter, seed: int, checkpoint: Path, training: TrainingConfig, meter: Meter
    ) -> None:
        self._best = best
        self._reporting = reporting
        self._seed = seed
        self._checkpoint = checkpoint
        self._training = training
        self._meter = meter
        self._spent = meter.read()
        self._started = 0.0
        self._size = 0  # of the epoch's pictures, in pixels

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        begun = of_all([trainer.current_epoch])
        if len(set(begun)) > 1:  # one was cut off before it kept what the others had
            raise ImagoError(
                f"The nodes would go on after different epochs, {sorted(set(begun))}: copy {self._checkpoint} of one "
                "to the others."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassifierModule)
        size = pl_module.recipe.sizes[trainer.current_epoch]
        if size != self._size:  # what the epoch before has freed fits these pictures badly
            hand_back()
        self._size = size
        seed = self._seed * 100_003 + trainer.current_epoch
        seed_everything(seed % 2**32, verbose=False)  # an epoch is the same whatever ran before it
        self._started = time.monotonic()
        if not trainer.is_global_zero:
            return
        number, epochs = trainer.current_epoch + 1, self._training.epochs
        last = self._best.history[-1] if self._best.history else None
        pictures = _pictures(trainer) * trainer.world_size
        self._reporting.start(f"epoch {number}/{epochs}", pictures, epochs_left=epochs - number, last=last)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, _outputs: object, batch: Batch, _index: int
    ) -> None:
        assert isinstance(pl_module, ClassifierModule)
        if trainer.is_global_zero:
            self._reporting.advance(len(batch[1]) * trainer.world_size, pl_module.latest_loss)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassifierModule)
        seconds = time.monotonic() - self._started
        figures = (pl_module.train_loss, pl_module.val_loss, pl_module.val_accuracy)
        result = EpochResult(trainer.current_epoch + 1, *figures, seconds)
        if not math.isfinite(result.val_loss):  # before it is offered or kept: weights may break in the last step
            raise ImagoError(
                f"The validation loss is no longer a number after the last step of epoch {result.epoch}: "
                f"{lower_rates(pl_module.recipe)}"
            )
        self._best.offer(result, pl_module.judged, tell=trainer.is_global_zero)

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        if has_stopped(self._best.history, self._training):
            trainer.should_stop = True
            if trainer.is_global_zero:
                self._reporting.note(f"stopped: no better {self._training.monitor} in {self._training.patience} epochs")
        self._spent = self._meter.read()
        partial = self._checkpoint.with_name(f".{self._checkpoint.name}.{trainer.node_rank}")
        trainer.save_checkpoint(partial)  # which all processes take part in, and the first one of every node writes
        if trainer.local_rank == 0:
            partial.replace(self._checkpoint)

    def state_dict(self) -> dict[str, Any]:
        history = [asdict(result) for result in self._best.history]
        best = {"best": asdict(self._best.result), "state": self._best.state}
        spent, at_once = self._spent.model_dump(), self._training.micro_batch_size
        return {"history": history, "spent": spent, "at_once": at_once, **best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        history = [EpochResult(**result) for result in state_dict["history"]]
        self._best.restore(history, EpochResult(**state_dict["best"]), state_dict["state"])


def has_stopped(history: list[EpochResult], training: TrainingConfig) -> bool:
    """Tell whether the last epochs have brought nothing better, as many as `training.patience` bears.

    The head alone, which is epoch 0, is not counted: the first epochs may do worse, on smaller pictures.
    """
    if training.patience is None:
        return False
    sign = -1 if training.monitor == "val_loss" else 1
    values = [sign * getattr(result, training.monitor) for result in history if result.epoch > 0]
    best = max(range(len(values)), key=lambda index: values[index], default=0)
    return len(values) - 1 - best >= training.patience


def _pictures(trainer: Trainer) -> int:
    """Return how many pictures this process sees in an epoch."""
    loader = trainer.train_dataloader
    assert isinstance(loader, DataLoader)
    assert isinstance(loader.batch_sampler, EvenBatches)
    return len(loader.batch_sampler.sampler)


@dataclass(frozen=True)
class Interrupted:
    """What a checkpoint tells of a training that was cut off, without its weights: whoever goes on reads these."""

    epochs: int  # that were done
    at_once: int | None  # pictures, where the batch had come down to so few
    spent: dict[str, float]
    history: list[EpochResult]

    def is_over(self, training: TrainingConfig) -> bool:
        """Tell whether the training had done its last epoch, or had stopped before it."""
        return has_stopped(self.history, training) or self.epochs >= training.epochs

    def with_kept_batch(self, training: TrainingConfig) -> TrainingConfig:
        """Return the training with as few pictures at a time as this one had come down to."""
        known = [size for size in (self.at_once, training.micro_batch_size) if size is not None]
        return training.model_copy(update={"micro_batch_size": min(known, default=None)})


def interrupted(checkpoint: Path, reporting: Reporter) -> Interrupted | None:
    """Return the training that left this checkpoint, None where there is none.

    One that cannot be used is put aside, which is said. Raises OSError where it cannot be read for now, and
    RuntimeError where memory does not do.
    """
    try:
        epoch, state = _read(checkpoint)
        history = [EpochResult(**result) for result in state["history"]]
        return Interrupted(epoch + 1, state["at_once"], state["spent"], history)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except (*UNREADABLE, UnpicklingError, BadZipFile, StopIteration) as error:
        if is_lack_of_memory(error):
            raise
        aside = checkpoint.replace(checkpoint.with_suffix(".damaged"))
        reporting.note(f"the checkpoint cannot be used, and training begins anew; it is put aside as {aside}")
        return None


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Return the state of `Epochs` in a checkpoint that can be used: every epoch's figures, and the best weights."""
    return _read(checkpoint)[1]


def _read(checkpoint: Path) -> tuple[int, dict[str, Any]]:
    with ZipFile(checkpoint) as archive:
        if (damaged := archive.testzip()) is not None:  # torch does not look
            raise BadZipFile(f"{damaged} is not what was written")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return int(content["epoch"]), next(state for name, state in content["callbacks"].items() if Epochs.__name__ in name)
