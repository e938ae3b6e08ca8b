"""What the defaults of training are: they depend on whether the backbone has learned before."""

import math
from dataclasses import dataclass, replace

import torch

from imago.config import TrainingConfig
from imago.errors import ConfigError
from imago.training.augment import Augmentation

_ON_CPU = 16  # pictures


@dataclass(frozen=True)
class Recipe:
    """How the weights are fitted, with nothing left open."""

    learning_rate: float
    head_learning_rate: float
    augmentation: Augmentation | None
    sizes: tuple[int, ...]  # the side in pixels that each epoch trains at


def check_epochs(training: TrainingConfig, weights: str) -> None:
    """Raise ConfigError where the head alone is to be fitted, on features that nothing has learned."""
    if not training.epochs and (weights == "none" or not training.warmup_head):
        raise ConfigError(
            "training.epochs is 0, which fits the head alone: it takes pretrained weights (model.weights) and "
            "training.warmup_head."
        )


def micro_batches(training: TrainingConfig) -> tuple[int, int]:
    """Return how many pictures are computed at a time, and how many such times make one step.

    On a CPU a step is no faster for being computed at once, and its activations are most of the memory.
    """
    at_once = training.micro_batch_size or (training.batch_size if torch.cuda.is_available() else _ON_CPU)
    times = math.ceil(training.batch_size / at_once)
    return math.ceil(training.batch_size / times), times


def recipe_for(training: TrainingConfig, *, pretrained: bool, image_size: int, fixed_size: bool = False) -> Recipe:
    """Fill in what the configuration leaves open; a network of a fixed size trains at `image_size`."""
    rate = training.learning_rate or (1e-3 if pretrained else 4e-3)
    augmentation = (
        Augmentation(smallest_crop=0.4, colour=0.3)
        if pretrained
        else Augmentation(smallest_crop=0.6, colour=0.2, degrees=15)
    )
    augmentation = replace(augmentation, rand_augment=training.rand_augment, erasing=training.erasing)
    saves_time = pretrained and not fixed_size
    smaller = training.train_size or (round(image_size * 0.72 / 32) * 32 if saves_time else image_size)
    return Recipe(
        learning_rate=rate,
        head_learning_rate=training.head_learning_rate or rate,
        augmentation=augmentation if training.augment else None,
        sizes=tuple(
            image_size if left <= training.full_size_epochs else smaller for left in range(training.epochs, 0, -1)
        ),
    )
