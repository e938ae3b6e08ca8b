"""Fits a classifier to a data set and keeps what was best on the validation pictures."""

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.nn import functional

from imago import progress
from imago.config import ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.transforms import Preprocessing
from imago.errors import DataRefused
from imago.evaluation.calibration import fit_reject_threshold, fit_temperature, softmax
from imago.progress import EpochResult, Reporter
from imago.training.classifier import create_classifier, has_fixed_size, head_of, preprocessing_of, try_out
from imago.training.datamodule import PictureDataModule
from imago.training.features import compute_features, fit_head
from imago.training.module import ClassifierModule, memory_format_of
from imago.training.recipe import recipe_for

__all__ = ["EpochResult", "TrainedModel", "train"]

_COVERAGE = 0.95
_LOWEST_CERTAINTY = 0.5


@dataclass(frozen=True)
class TrainedModel:
    """A fitted classifier, and what its pictures, classes and probabilities are."""

    model: nn.Module
    architecture: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    reject_threshold: float
    history: tuple[EpochResult, ...]
    best: EpochResult


def train(
    dataset: ImageDataset,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    image_size: int,
    seed: int,
    workdir: Path,
    logger: Logger | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    reporter: Reporter | None = None,
) -> TrainedModel:
    """Fit the head on frozen features where the backbone is pretrained, then everything; keep the best on validation.

    The same seed gives the same weights on the same CPU. Raises ConfigError for a model that cannot be made,
    DataRefused where there is nothing to train with, and ImagoError where the loss is no longer a number.
    """
    classes = dataset.split("train").classes
    if len(classes) < 2:
        raise DataRefused(f"Training needs pictures of two classes or more; there are {len(classes)}.")
    with _quiet(), _seeded(seed), reporter or progress.reporter() as reporting:
        pretrained = model.weights != "none"
        network = create_classifier(model.architecture, model.weights, len(classes), image_size)
        fixed = has_fixed_size(model.architecture)
        recipe = recipe_for(training, pretrained=pretrained, image_size=image_size, fixed_size=fixed)
        for size in {*recipe.sizes} - {image_size}:
            try_out(network, model.architecture, size, "training.train_size")
        preprocessing = preprocessing_of(network, image_size)
        data = PictureDataModule(
            dataset,
            classes,
            preprocessing,
            batch_size=training.batch_size,
            sizes=recipe.sizes,
            how=recipe.augmentation,
            seed=seed,
            num_workers=training.num_workers,
        )
        best = _Best(reporting, on_epoch)
        if not pretrained:
            _zero_head(network)
        elif training.warmup_head:
            _warm_up(network, data, best, reporting)
        module = ClassifierModule(
            network,
            learning_rate=recipe.learning_rate,
            head_learning_rate=recipe.head_learning_rate,
            weight_decay=training.weight_decay,
            label_smoothing=training.label_smoothing,
        )
        _fit(module, data, best, training.epochs, logger, reporting, workdir)
        network.load_state_dict(best.state)
        network.eval().cpu()
        logits, labels = _validate(network, data)
    temperature = fit_temperature(logits, labels)
    coverage_threshold = fit_reject_threshold(softmax(logits, temperature), labels, coverage=_COVERAGE)
    return TrainedModel(
        model=network,
        architecture=model.architecture,
        classes=classes,
        preprocessing=preprocessing,
        temperature=temperature,
        reject_threshold=min(coverage_threshold, _LOWEST_CERTAINTY),
        history=tuple(best.history),
        best=best.result,
    )


class _Best:
    """Remembers every epoch, and the weights of the best: the highest accuracy, then the lowest loss."""

    def __init__(self, reporting: Reporter, on_epoch: Callable[[EpochResult], None] | None) -> None:
        self._reporting = reporting
        self._on_epoch = on_epoch
        self.history: list[EpochResult] = []
        self.state: dict[str, torch.Tensor] = {}
        self.result = EpochResult(-1, float("nan"), float("inf"), -1.0, 0.0)

    def offer(self, result: EpochResult, model: nn.Module) -> None:
        self.history.append(result)
        if (result.val_accuracy, -result.val_loss) >= (self.result.val_accuracy, -self.result.val_loss):
            self.result = result
            self.state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self._reporting.epoch(result)
        if self._on_epoch is not None:
            self._on_epoch(result)


class _Epochs:
    """Tells of every step, and offers every epoch's weights; hooked into Lightning's callbacks."""

    def __init__(self, best: _Best, reporting: Reporter) -> None:
        self._best = best
        self._reporting = reporting
        self._started = 0.0

    def callback(self) -> Callback:
        return LambdaCallback(
            on_train_epoch_start=self._begin, on_train_batch_end=self._advance, on_validation_end=self._finish
        )

    def _begin(self, trainer: Trainer, *_: object) -> None:
        self._started = time.monotonic()
        batches = int(trainer.num_training_batches)
        self._reporting.start(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", batches)

    def _advance(self, *_: object) -> None:
        self._reporting.advance()

    def _finish(self, trainer: Trainer, module: ClassifierModule) -> None:
        seconds = time.monotonic() - self._started
        figures = (module.train_loss, module.val_loss, module.val_accuracy)
        self._best.offer(EpochResult(trainer.current_epoch + 1, *figures, seconds), module.model)


def _zero_head(network: nn.Module) -> None:
    """Let a random network begin undecided: a random head's large gradients cost it the first epochs."""
    head = head_of(network)
    if head is not None:
        nn.init.zeros_(head.weight)


def _warm_up(network: nn.Module, data: PictureDataModule, best: _Best, reporting: Reporter) -> None:
    head = head_of(network)
    if head is None or head.bias is None:
        return
    started = time.monotonic()
    loaders = data.plain_train_dataloader(), data.val_dataloader()
    reporting.start("features", len(data.train_labels) + len(data.val_labels))
    layout = memory_format_of(network)
    network.to(memory_format=layout)  # type: ignore[call-overload]
    train, val = (
        compute_features(network, loader, memory_format=layout, on_batch=reporting.advance) for loader in loaders
    )
    fitted = fit_head(train, val, head.out_features)
    head.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        losses = [functional.cross_entropy(fitted(features), labels).item() for features, labels in (train, val)]
        accuracy = (fitted(val[0]).argmax(1) == val[1]).float().mean().item()
    best.offer(EpochResult(0, losses[0], losses[1], accuracy, time.monotonic() - started), network)


def _fit(
    module: ClassifierModule,
    data: PictureDataModule,
    best: _Best,
    epochs: int,
    logger: Logger | None,
    reporting: Reporter,
    workdir: Path,
) -> None:
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        logger=logger or False,
        callbacks=[_Epochs(best, reporting).callback()],
        default_root_dir=workdir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=1_000_000,
        gradient_clip_val=5.0,
    )
    with _interruptible():
        trainer.fit(module, datamodule=data)


def _validate(network: nn.Module, data: PictureDataModule) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rows = []
    with torch.inference_mode():
        for images, labels in data.val_dataloader():
            rows.append((network(images).numpy(), labels.numpy()))
    logits, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
    return logits, labels


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C come out as it went in: Lightning turns it into an exit, and leaves the signal ignored."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch for a while."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's and timm's own remarks to errors for a while."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning", "timm")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
