"""What is left open is filled in by whether the backbone has learned before; what is given stands."""

import os

import pytest
import torch

from imago.config import TrainingConfig
from imago.training.recipe import at_once, even_parts, num_workers, recipe_for


def test_a_pretrained_backbone_is_tuned_at_lower_rates_on_smaller_pictures() -> None:
    tuned = recipe_for(TrainingConfig(epochs=3), pretrained=True, image_size=224)
    scratch = recipe_for(TrainingConfig(epochs=3), pretrained=False, image_size=224)
    assert tuned.learning_rate < scratch.learning_rate
    assert tuned.head_learning_rate > tuned.learning_rate
    assert tuned.layer_decay < scratch.layer_decay == 1.0
    assert tuned.sizes == (128, 160, 192)
    assert scratch.sizes == (224, 224, 224)


@pytest.mark.parametrize("pretrained", [True, False])
def test_what_is_configured_stands(pretrained: bool) -> None:
    training = TrainingConfig(
        epochs=2, learning_rate=0.5, head_learning_rate=0.25, augment=False, train_size=64, layer_decay=0.5
    )
    recipe = recipe_for(training, pretrained=pretrained, image_size=128)
    assert (recipe.learning_rate, recipe.head_learning_rate, recipe.layer_decay) == (0.5, 0.25, 0.5)
    assert recipe.augmentation is None
    assert recipe.sizes == (64, 64)


def test_small_pictures_stay_large_enough_to_be_seen() -> None:
    assert recipe_for(TrainingConfig(epochs=1), pretrained=True, image_size=32).sizes == (32,)
    assert recipe_for(TrainingConfig(epochs=2), pretrained=True, image_size=128).sizes == (96, 96)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 1}, (192,)),
        ({"epochs": 4}, (128, 128, 160, 192)),
        ({"epochs": 3, "full_size_epochs": 1}, (128, 160, 224)),
        ({"epochs": 3, "train_size": 96, "full_size_epochs": 2}, (96, 224, 224)),
    ],
)
def test_pictures_grow_from_epoch_to_epoch(options: dict[str, int], expected: tuple[int, ...]) -> None:
    assert recipe_for(TrainingConfig(**options), pretrained=True, image_size=224).sizes == expected


def test_a_network_of_a_fixed_size_sees_no_other() -> None:
    assert recipe_for(TrainingConfig(epochs=2), pretrained=True, image_size=224, fixed_size=True).sizes == (224, 224)


def test_no_more_is_computed_at_once_than_the_batch_has() -> None:
    assert at_once(TrainingConfig(batch_size=32, micro_batch_size=10)) == 10
    assert at_once(TrainingConfig(batch_size=8, micro_batch_size=10)) == 8
    assert at_once(TrainingConfig(batch_size=8)) == 8


def test_of_large_pictures_fewer_are_computed_at_once_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    training = TrainingConfig(batch_size=32)
    assert [at_once(training, size) for size in (0, 96, 192, 224, 512)] == [16, 16, 11, 8, 8]
    assert at_once(TrainingConfig(batch_size=32, micro_batch_size=32), 512) == 32
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert at_once(training, 512) == 32


@pytest.mark.parametrize(
    ("gpus", "options", "expected"),
    [
        (0, {}, "32-true"),
        (1, {}, "bf16-mixed"),
        (2, {"devices": 2}, "32-true"),
        (1, {"nodes": 2}, "32-true"),
        (2, {"devices": 2, "precision": "16-mixed"}, "16-mixed"),
    ],
)
def test_precision_is_mixed_by_itself_on_one_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, gpus: int, options: dict[str, object], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    training = TrainingConfig.model_validate(options)
    assert recipe_for(training, pretrained=True, image_size=224).precision == expected


@pytest.mark.parametrize(
    ("gpus", "devices", "expected"), [(0, 1, 0), (0, 2, 0), (1, 1, 7), (2, 2, 3), (4, 4, 1), (8, 8, 1)]
)
def test_processes_that_train_together_share_the_cores_for_loading(
    monkeypatch: pytest.MonkeyPatch, gpus: int, devices: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert num_workers(TrainingConfig(devices=devices)) == expected
    assert num_workers(TrainingConfig(devices=devices, num_workers=5)) == 5


@pytest.mark.parametrize(
    ("count", "at_most", "parts"), [(32, 16, 2), (33, 16, 3), (3, 2, 1), (5, 2, 2), (17, 2, 8), (1, 2, 1), (3, 1, 3)]
)
def test_none_of_several_parts_has_one_picture_by_itself(count: int, at_most: int, parts: int) -> None:
    assert even_parts(count, at_most) == parts
