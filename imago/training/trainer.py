"""Fits a classifier to a data set and keeps what was best on the validation pictures."""

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.nn import functional

from imago import progress
from imago.allocator import kept_memory
from imago.config import ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.transforms import Preprocessing
from imago.errors import ConfigError, DataRefused, ImagoError
from imago.evaluation.calibration import fit_reject_threshold, fit_temperature, softmax
from imago.footprint import Spent
from imago.history import EpochResult
from imago.progress import Reporter
from imago.training.augment import check_rand_augment
from imago.training.classifier import (
    create_classifier,
    has_fixed_size,
    head_of,
    license_of,
    preprocessing_of,
    try_out,
)
from imago.training.datamodule import PictureDataModule
from imago.training.epochs import CHECKPOINT, Best, Epochs, interrupted_at, is_over, kept_state, with_kept_batch
from imago.training.features import Features, features_of, fit_head
from imago.training.layout import measured_memory_format, memory_format_of
from imago.training.meter import Meter
from imago.training.module import ClassifierModule
from imago.training.recipe import Recipe, at_once, check_epochs, recipe_for

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
    train_ids: tuple[str, ...] = ()
    train_features: Features | None = None  # of the frozen backbone, where it is pretrained
    weights_license: str = "not stated"
    spent: Spent | None = None


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
    cache: Path | None = None,
) -> TrainedModel:
    """Fit the head on frozen features where the backbone is pretrained, then everything; keep the best on validation.

    The same seed gives the same weights on the same CPU. After each epoch a checkpoint is kept in `workdir`; where one
    is there already, training goes on after it, to the same end. A `cache` folder keeps the features of the frozen
    backbone, and what was measured, for the next training. Raises ConfigError for a model that cannot be made,
    DataRefused where there is nothing to train with, and ImagoError where the loss is no longer a number.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    kept = workdir / CHECKPOINT
    if (count := len(dataset.split("train").classes)) < 2:
        raise DataRefused(f"Training needs pictures of two classes or more; there are {count}.")
    check_epochs(training, model.weights)
    if training.rand_augment is not None:
        check_rand_augment(training.rand_augment)
    meter = Meter(training)
    meter.before = kept_state(kept).get("spent", {}) if interrupted_at(kept) else {}
    with kept_memory(), _quiet(), reporter or progress.reporter() as reporting:
        while True:
            if done := interrupted_at(kept):
                training = with_kept_batch(training, kept)
                note = f"going on after epoch {done} of {training.epochs}, where the training before was cut off"
                reporting.note(note)
            try:
                with _seeded(seed):
                    return _train(
                        dataset, model, training, image_size, seed, workdir, logger, on_epoch, reporting, cache, meter
                    )
            except (MemoryError, RuntimeError) as error:
                training = _for_less_memory(training, error)
                reporting.note(f"memory does not do: going on with {training.micro_batch_size} pictures at a time")


def _train(
    dataset: ImageDataset,
    model: ModelConfig,
    training: TrainingConfig,
    image_size: int,
    seed: int,
    workdir: Path,
    logger: Logger | None,
    on_epoch: Callable[[EpochResult], None] | None,
    reporting: Reporter,
    cache: Path | None,
    meter: Meter,
) -> TrainedModel:
    classes, kept = dataset.split("train").classes, workdir / CHECKPOINT
    pretrained, done = model.weights != "none", interrupted_at(kept)
    network = create_classifier(model.architecture, model.weights, len(classes), image_size)
    fixed = has_fixed_size(model.architecture)
    recipe = recipe_for(training, pretrained=pretrained, image_size=image_size, fixed_size=fixed)
    recipe = _fitting(recipe, network, model.architecture, image_size, training, reporting)
    preprocessing = preprocessing_of(network, image_size)
    weights_license = license_of(network, model.weights)
    data = PictureDataModule(
        dataset,
        classes,
        preprocessing,
        batch_size=training.batch_size,
        at_once=at_once(training),
        sizes=recipe.sizes,
        how=recipe.augmentation,
        seed=seed,
        num_workers=training.num_workers,
        balanced=training.balance == "sampling",
    )
    alone = training.devices * training.nodes == 1
    best = Best(reporting, on_epoch if alone else None)
    layout = memory_format_of(network)
    if cache is not None:
        layout = measured_memory_format(network, model.architecture, image_size, cache / "layouts")
    found: tuple[Features, Features] | None = None
    head = head_of(network)
    if pretrained and training.warmup_head and head is not None and head.bias is not None:
        started = time.monotonic()
        found = features_of(network, data, layout, reporting, cache and cache / "features")
        if not done:
            _warm_up(network, head, *found, best, started)
    elif not pretrained:
        _zero_head(network)
    if not training.epochs and not best.history:
        raise ConfigError(f"training.epochs is 0, and {model.architecture} has no head that can be fitted alone.")
    if training.epochs:
        module = ClassifierModule(network, training, recipe, data.train_labels, layout)
        callback = Epochs(best, reporting, seed, kept, training, meter)
        over = bool(done) and is_over(kept, training)
        if not over:
            _fit(module, data, callback, training, logger, kept if done else None, workdir)
        if over or not alone:  # what was best is known to the processes that trained, and kept by them
            best.on_epoch = on_epoch
            callback.load_state_dict(kept_state(kept))
        if best.result.epoch == 0:
            reporting.note("kept: the head on frozen features, for no epoch did better on the validation pictures")
    network.load_state_dict(best.state)
    network.eval().cpu()
    logits, labels = _validate(network, data)
    temperature = fit_temperature(logits, labels)
    return TrainedModel(
        model=network,
        architecture=model.architecture,
        classes=classes,
        preprocessing=preprocessing,
        temperature=temperature,
        reject_threshold=_reject_threshold(softmax(logits, temperature), labels, training),
        history=tuple(best.history),
        best=best.result,
        train_ids=data.train_ids,
        train_features=found[0] if found else None,
        weights_license=weights_license,
        spent=meter.read(),
    )


def _reject_threshold(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], training: TrainingConfig
) -> float:
    """Return the threshold that reaches what was asked for; where nothing was, what is more likely than not stands."""
    if training.reject_error is not None:
        return fit_reject_threshold(probabilities, labels, target_error=training.reject_error)
    if training.reject_coverage is not None:
        return fit_reject_threshold(probabilities, labels, coverage=training.reject_coverage)
    return min(fit_reject_threshold(probabilities, labels, coverage=_COVERAGE), _LOWEST_CERTAINTY)


def _fitting(
    recipe: Recipe,
    network: nn.Module,
    architecture: str,
    image_size: int,
    training: TrainingConfig,
    reporting: Reporter,
) -> Recipe:
    """Return the recipe with sizes that the network takes. Raises ConfigError where it does not take what was asked."""
    try:
        for size in {*recipe.sizes} - {image_size}:
            try_out(network, architecture, size, "training.train_size")
    except ConfigError:
        if training.train_size is not None:
            raise
        reporting.note(f"{architecture} takes pictures of {image_size} pixels only: it trains at these in every epoch")
        return replace(recipe, sizes=(image_size,) * training.epochs)
    return recipe


def _zero_head(network: nn.Module) -> None:
    """Let a random network begin undecided: a random head's large gradients cost it the first epochs."""
    head = head_of(network)
    if head is not None:
        nn.init.zeros_(head.weight)


def _warm_up(network: nn.Module, head: nn.Linear, train: Features, val: Features, best: Best, started: float) -> None:
    """Give the network the head that was fitted on its features, and offer it as epoch 0."""
    fitted = fit_head(train, val, head.out_features)
    head.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        losses = [functional.cross_entropy(fitted(features), labels).item() for features, labels in (train, val)]
        accuracy = (fitted(val[0]).argmax(1) == val[1]).float().mean().item()
    best.offer(EpochResult(0, losses[0], losses[1], accuracy, time.monotonic() - started), network)


def _precision(training: TrainingConfig) -> Any:
    if training.precision != "auto":
        return training.precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _for_less_memory(training: TrainingConfig, error: Exception) -> TrainingConfig:
    """Return the same training with half the batch. Raises what is no lack of memory, and ImagoError unless asked."""
    lacking = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
    if not lacking:
        raise error
    now = at_once(training)
    if training.auto_batch_size and now > 1:
        return training.model_copy(update={"micro_batch_size": now // 2})
    raise ImagoError(
        f"Memory does not do for {now} pictures at a time: set training.micro_batch_size={max(1, now // 2)}, or "
        "training.auto_batch_size=true, or take --config small_memory."
    ) from error


def _fit(
    module: ClassifierModule,
    data: PictureDataModule,
    callback: Callback,
    training: TrainingConfig,
    logger: Logger | None,
    kept: Path | None,
    workdir: Path,
) -> None:
    trainer = Trainer(
        max_epochs=training.epochs,
        accelerator="auto",
        devices=training.devices,
        num_nodes=training.nodes,
        strategy="ddp_fork" if training.strategy == "auto" and training.devices > 1 else training.strategy,
        use_distributed_sampler=False,
        logger=logger or False,
        callbacks=[callback],
        default_root_dir=workdir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,
        precision=_precision(training),
    )
    with _interruptible():
        trainer.fit(module, datamodule=data, ckpt_path=kept, weights_only=True)


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
    """Seed Python, numpy and torch for a while."""
    with isolate_rng():
        seed_everything(seed % 2**32, verbose=False)
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
