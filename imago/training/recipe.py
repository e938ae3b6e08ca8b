"""What the defaults of training are: they depend on whether the backbone has learned before."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from imago.config import TrainingConfig
from imago.errors import ConfigError
from imago.training.augment import Augmentation

_ON_CPU, _AT_MOST, _AT_LEAST = 16, 160, 8  # pictures; the side in pixels that they may have, and how few larger ones
_LOADERS = 8  # processes
_SMALLEST, _LARGEST = 4 / 7, 6 / 7  # of the side that the model is served at, in the first and last epoch
_SEEN, _STEP = 96, 32  # pixels

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Recipe:
    """How the weights are fitted, with nothing left open."""

    learning_rate: float
    head_learning_rate: float
    layer_decay: float  # of the learning rate, from each layer to the one below it
    augmentation: Augmentation | None
    sizes: tuple[int, ...]  # the side in pixels that each epoch trains at
    precision: Precision


def check_epochs(training: TrainingConfig, weights: str) -> None:
    """Raise ConfigError where the head alone is to be fitted, on features that nothing has learned."""
    if not training.epochs and (weights == "none" or not training.warmup_head):
        raise ConfigError(
            "training.epochs is 0, which fits the head alone: it takes pretrained weights (model.weights) and "
            "training.warmup_head."
        )


def at_once(training: TrainingConfig, size: int = 0) -> int:
    """Return how many of a batch's pictures, of a side in pixels, are computed at a time; their gradients add up.

    On a CPU a step is no faster for being computed at once, and its activations are most of the memory: of pictures
    that are larger than usual fewer are taken, though not so few that batch norm knows nothing of the others.
    """
    usual = training.batch_size
    if not torch.cuda.device_count():
        usual = max(_AT_LEAST, min(_ON_CPU, _ON_CPU * _AT_MOST**2 // max(1, size) ** 2))
    return min(training.batch_size, training.micro_batch_size or usual)


def even_parts(count: int, at_most: int) -> int:
    """Return into how many parts of about `at_most` pictures so many are divided.

    None has one picture where it may have two, for batch norm learns nothing from one; one may have three then.
    """
    return min(-(-count // at_most), max(1, count // min(2, at_most)))


def num_workers(training: TrainingConfig) -> int:
    """Return how many processes load pictures for each that trains: a CPU is busy already, a GPU waits for them."""
    if training.num_workers is not None:
        return training.num_workers
    cores = (os.cpu_count() or 1) // training.devices
    return min(_LOADERS, max(1, cores - 1)) if torch.cuda.device_count() else 0


def working_device(training: TrainingConfig) -> torch.device:
    """Return what computes beside Lightning: one GPU; the CPU where several processes are to be forked, which may not
    find a GPU in use."""
    return torch.device("cuda" if training.processes == 1 and torch.cuda.device_count() else "cpu")


def recipe_for(training: TrainingConfig, *, pretrained: bool, image_size: int, fixed_size: bool = False) -> Recipe:
    """Fill in what the configuration leaves open; a network of a fixed size trains at `image_size`."""
    rate = training.learning_rate or (5e-4 if pretrained else 4e-3)
    augmentation = (
        Augmentation(smallest_crop=0.6, colour=0.1)
        if pretrained
        else Augmentation(smallest_crop=0.6, colour=0.2, degrees=15)
    )
    augmentation = replace(augmentation, rand_augment=training.rand_augment, erasing=training.erasing)
    return Recipe(
        learning_rate=rate,
        head_learning_rate=training.head_learning_rate or training.learning_rate or (2e-3 if pretrained else rate),
        layer_decay=training.layer_decay or (0.95 if pretrained else 1.0),
        augmentation=augmentation if training.augment else None,
        sizes=tuple(_sizes(training, image_size, grows=pretrained and not fixed_size)),
        precision=_precision(training),
    )


def _precision(training: TrainingConfig) -> Precision:
    """Return what the configuration says, or bfloat16 on one GPU that has it: to ask is to be unable to fork."""
    if training.precision != "auto":
        return training.precision
    alone = training.processes == 1 and torch.cuda.device_count()
    able = alone and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if able else "32-true"


def _sizes(training: TrainingConfig, image_size: int, *, grows: bool) -> Iterator[int]:
    """Give the side that each epoch trains at: small pictures first, for they cost a third and teach most of it.

    What the last epoch crops out of a picture then looks as large as in the whole picture that is judged (Touvron et
    al. 2019, https://arxiv.org/abs/1906.06423): a network is at its best at the size that it saw last.
    """
    last = max(1, training.epochs - 1)
    for epoch in range(training.epochs):
        share = _SMALLEST + (_LARGEST - _SMALLEST) * (epoch / last if training.epochs > 1 else 1)
        grown = max(min(image_size, _SEEN), int(share * image_size + 1e-9) // _STEP * _STEP)
        if training.epochs - epoch <= training.full_size_epochs:
            yield image_size
        else:
            yield training.train_size or (grown if grows else image_size)
