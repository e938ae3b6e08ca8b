"""Fits a classifier to a data set and keeps what was best on the validation pictures."""

import gc
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessException

from imago import progress
from imago.allocator import kept_memory
from imago.config import ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.transforms import Preprocessing
from imago.errors import ConfigError, DataRefused
from imago.footprint import Spent
from imago.history import EpochResult
from imago.progress import Lines, Reporter
from imago.quiet import quiet
from imago.training.augment import check_rand_augment
from imago.training.classifier import (
    create_classifier,
    has_fixed_size,
    license_of,
    preprocessing_of,
    try_out,
)
from imago.training.confidence import fit_confidence
from imago.training.datamodule import PictureDataModule
from imago.training.devices import check_devices, check_shares
from imago.training.epochs import CHECKPOINT, Best, Epochs, Interrupted, interrupted, state_of
from imago.training.features import Features, features_of
from imago.training.fit import LOUD, fit, seeded
from imago.training.head import head_of
from imago.training.layout import measured_memory_format, memory_format_of
from imago.training.meter import Meter
from imago.training.module import ClassifierModule, without_checkpoints
from imago.training.recipe import Recipe, at_once, check_epochs, num_workers, recipe_for, without_effect, working_device
from imago.training.shortage import for_less_memory, refuse_one_picture
from imago.training.warmup import warm_up, zero_head

_HOPELESS = 5  # times the loss of naming every class alike


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
    reporter = reporter or (progress.reporter() if training.processes == 1 else Lines(sys.stderr))
    with kept_memory(), quiet(*LOUD), reporter as reporting:
        cut, meter = interrupted(checkpoint, reporting), Meter(training)
        meter.before = cut.spent if cut else {}
        surroundings = Surroundings(image_size, seed, workdir, _once(on_epoch), reporting, cache, meter)
        while True:
            if cut:
                asked, training = training, cut.with_kept_batch(training)
                if training != asked:
                    reporting.note(f"{training.micro_batch_size} pictures at a time, as it was before")
                far = f"after epoch {cut.epochs} of {training.epochs}"
                reporting.note(
                    f"done before, {far}: its weights are taken"
                    if cut.is_over(training)
                    else f"going on {far}, where the training before was cut off"
                )
            try:
                with seeded(seed):
                    return _train(dataset, model, training, surroundings, cut)
            except (MemoryError, RuntimeError, ValueError, ProcessException) as error:
                refuse_one_picture(error)
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
    for sentence in without_effect(training, pretrained=pretrained):
        reporting.note(sentence)
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
        first_epoch=cut.epochs if cut else 0,
    )
    check_shares(training, {"train": len(data.train_labels), "val": len(data.val_labels)})
    best = Best(reporting, given.on_epoch if training.processes == 1 else None)
    layout = memory_format_of(network)
    if given.cache is not None:
        layout = measured_memory_format(network, model.architecture, image_size, given.cache / "layouts")
    found: tuple[Features, Features] | None = None
    if not pretrained:
        zero_head(network)
    elif training.warmup_head and (head := head_of(network, image_size)) is not None and head.bias is not None:
        started = time.monotonic()
        network.to(working_device(training))
        found = features_of(network, data, layout, reporting, given.cache and given.cache / "features")
        network.cpu()
        if cut is None:
            best.offer(warm_up(head, *found, started), network)
    elif training.warmup_head:
        reporting.note(
            f"{model.architecture} does not end in one linear layer with a bias: its head is not fitted on frozen "
            "features first, so there is no such baseline to do better than, and no list of labels to look at again"
        )
    if not training.epochs and not best.history:
        raise ConfigError(f"training.epochs is 0, and {model.architecture} has no head that can be fitted alone.")
    if training.epochs:
        module = ClassifierModule(network, training, recipe, data.train_labels, layout)
        callback = Epochs(best, reporting, given.seed, checkpoint, training, given.meter)
        over = cut is not None and cut.is_over(training)
        if not over:
            begun = checkpoint if cut else None
            fit(module, data, callback, training, given.workdir, checkpoint=begun)
        apart = training.processes > 1 and checkpoint.exists()  # the best is known to the processes that trained
        if over or apart:
            best.on_epoch = given.on_epoch
            callback.load_state_dict(state_of(checkpoint))
        if best.result.epoch == 0:
            reporting.note("kept: the head on frozen features, for no epoch did better on the validation pictures")
    loss, guess = best.result.val_loss, math.log(len(classes))
    if loss > _HOPELESS * guess:
        reporting.note(
            f"the validation loss, {loss:.3g}, is far above that of a guess ({guess:.3g}): try a lower "
            "training.learning_rate"
        )
    network.load_state_dict(best.state)
    network.eval()
    confidence = fit_confidence(network, data, training)
    return TrainedModel(
        model=network,
        architecture=model.architecture,
        classes=classes,
        preprocessing=preprocessing,
        temperature=confidence.temperature,
        reject_threshold=confidence.reject_threshold,
        history=tuple(best.history),
        best=best.result,
        train_ids=data.train_ids,
        train_features=found[0] if found else None,
        weights_license=weights_license,
        spent=given.meter.read(),
        recipe=recipe,
    )


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
