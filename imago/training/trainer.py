"""Fits a classifier to a data set and keeps what was best on the validation pictures."""

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn import functional

from imago import progress
from imago.allocator import kept_memory
from imago.config import ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.transforms import Preprocessing
from imago.errors import ConfigError, DataRefused
from imago.evaluation.calibration import fit_reject_threshold, fit_temperature, softmax
from imago.footprint import Spent
from imago.history import EpochResult
from imago.progress import Lines, Reporter
from imago.training.augment import check_rand_augment
from imago.training.classifier import (
    create_classifier,
    has_fixed_size,
    license_of,
    preprocessing_of,
    try_out,
)
from imago.training.datamodule import PictureDataModule
from imago.training.devices import check_devices
from imago.training.epochs import CHECKPOINT, Best, Epochs, Interrupted, interrupted, state_of
from imago.training.features import Features, features_of, fit_head
from imago.training.fit import fit, quiet, seeded
from imago.training.head import head_of
from imago.training.layout import measured_memory_format, memory_format_of
from imago.training.meter import Meter
from imago.training.module import ClassifierModule, without_checkpoints
from imago.training.recipe import Recipe, at_once, check_epochs, num_workers, recipe_for, working_device
from imago.training.shortage import for_less_memory

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
    recipe: Recipe | None = None


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
    checkpoint = workdir / CHECKPOINT
    if (count := len(dataset.split("train").classes)) < 2:
        raise DataRefused(f"Training needs pictures of two classes or more; there are {count}.")
    check_epochs(training, model.weights)
    check_devices(training)
    if training.rand_augment is not None:
        check_rand_augment(training.rand_augment)
    alone = training.devices * training.nodes == 1
    reporter = reporter or (progress.reporter() if alone else Lines(sys.stderr))  # a bar's thread would not be forked
    with kept_memory(), quiet(), reporter as reporting:
        cut, meter = interrupted(checkpoint, reporting), Meter(training)
        meter.before = cut.spent if cut else {}
        surroundings = Surroundings(image_size, seed, workdir, logger, _once(on_epoch), reporting, cache, meter)
        while True:
            if cut:
                training = cut.with_kept_batch(training)
                far = f"after epoch {cut.epochs} of {training.epochs}"
                reporting.note(
                    f"done before, {far}: its weights are taken"
                    if cut.is_over(training)
                    else f"going on {far}, where the training before was cut off"
                )
            try:
                with seeded(seed):
                    return _train(dataset, model, training, surroundings, cut)
            except (MemoryError, RuntimeError, ProcessRaisedException) as error:
                fixed = has_fixed_size(model.architecture)
                tried = recipe_for(
                    training, pretrained=model.weights != "none", image_size=image_size, fixed_size=fixed
                )
                training = for_less_memory(training, error, max(tried.sizes, default=0))
                reporting.note(f"memory does not do: going on with {training.micro_batch_size} pictures at a time")
            gc.collect()
            torch.cuda.empty_cache()  # which does nothing where there is no GPU
            cut = interrupted(checkpoint, reporting)


@dataclass(frozen=True)
class Surroundings:
    """What a training is given beside its pictures, model and configuration; see `train`."""

    image_size: int
    seed: int
    workdir: Path
    logger: Logger | None
    on_epoch: Callable[[EpochResult], None] | None
    reporting: Reporter
    cache: Path | None
    meter: Meter


def _once(on_epoch: Callable[[EpochResult], None] | None) -> Callable[[EpochResult], None] | None:
    """Let each epoch be told of once, also where training goes on after a lack of memory."""
    if on_epoch is None:
        return None
    told: set[int] = set()

    def tell(result: EpochResult) -> None:
        if result.epoch not in told:
            told.add(result.epoch)
            on_epoch(result)

    return tell


def _train(
    dataset: ImageDataset,
    model: ModelConfig,
    training: TrainingConfig,
    given: Surroundings,
    cut: Interrupted | None,
) -> TrainedModel:
    classes, image_size, reporting = dataset.split("train").classes, given.image_size, given.reporting
    checkpoint, pretrained = given.workdir / CHECKPOINT, model.weights != "none"
    network = create_classifier(model.architecture, model.weights, len(classes), image_size)
    training = without_checkpoints(training, network, reporting)
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
        seed=given.seed,
        num_workers=num_workers(training),
        balanced=training.balance == "sampling",
    )
    alone = training.devices * training.nodes == 1
    best = Best(reporting, given.on_epoch if alone else None)
    layout = memory_format_of(network)
    if given.cache is not None:
        layout = measured_memory_format(network, model.architecture, image_size, given.cache / "layouts")
    found: tuple[Features, Features] | None = None
    head = head_of(network, image_size) if pretrained and training.warmup_head else None
    if head is not None and head.bias is not None:
        started = time.monotonic()
        network.to(working_device(training))
        found = features_of(network, data, layout, reporting, given.cache and given.cache / "features")
        network.cpu()
        if cut is None:
            _warm_up(network, head, *found, best, started)
    elif pretrained and training.warmup_head:
        reporting.note(
            f"{model.architecture} does not end in one linear layer with a bias: its head is not fitted on frozen "
            "features first, so there is no such baseline to do better than, and no list of labels to look at again"
        )
    elif not pretrained:
        _zero_head(network)
    if not training.epochs and not best.history:
        raise ConfigError(f"training.epochs is 0, and {model.architecture} has no head that can be fitted alone.")
    if training.epochs:
        module = ClassifierModule(network, training, recipe, data.train_labels, layout)
        callback = Epochs(best, reporting, given.seed, checkpoint, training, given.meter)
        over = cut is not None and cut.is_over(training)
        if not over:
            begun = checkpoint if cut else None
            fit(module, data, callback, training, given.workdir, logger=given.logger, checkpoint=begun)
        if over or (not alone and checkpoint.exists()):  # the best is known to the processes that trained, and kept
            best.on_epoch = given.on_epoch
            callback.load_state_dict(state_of(checkpoint))
        if best.result.epoch == 0:
            reporting.note("kept: the head on frozen features, for no epoch did better on the validation pictures")
    network.load_state_dict(best.state)
    network.eval()
    logits, labels = _validate(network.to(working_device(training)), data)
    network.cpu()
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
        spent=given.meter.read(),
        recipe=recipe,
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
    head = network.get_classifier()  # type: ignore[operator]
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)


def _warm_up(network: nn.Module, head: nn.Linear, train: Features, val: Features, best: Best, started: float) -> None:
    """Give the network the head that was fitted on its features, and offer it as epoch 0."""
    fitted = fit_head(train, val, head.out_features)
    head.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        losses = [functional.cross_entropy(fitted(features), labels).item() for features, labels in (train, val)]
        accuracy = (fitted(val[0]).argmax(1) == val[1]).float().mean().item()
    best.offer(EpochResult(0, losses[0], losses[1], accuracy, time.monotonic() - started), network)


def _validate(network: nn.Module, data: PictureDataModule) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rows, device = [], next(network.parameters()).device
    with torch.inference_mode():
        for images, labels in data.val_dataloader():
            rows.append((network(images.to(device)).cpu().numpy(), labels.numpy()))
    logits, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
    return logits, labels
