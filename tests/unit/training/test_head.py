"""What a head sees of the features is found out, whatever the network calls its parts."""

import pytest
import timm
import torch
from torch import nn

from imago.training.head import averaged_sides

SIZE = 128

AVERAGING = {  # with where rows and columns stand
    "test_resnet": (2, 3),
    "mobilenetv3_small_050": (2, 3),  # two layers after the mean
    "test_convnext": (2, 3),  # a norm after the mean
    "test_mambaout": (1, 2),  # its channels are last
}


@pytest.mark.parametrize(("architecture", "sides"), AVERAGING.items())
def test_a_head_that_sees_the_mean_of_all_places_is_found(architecture: str, sides: tuple[int, int]) -> None:
    model = timm.create_model(architecture, num_classes=3)
    assert averaged_sides(model.train(), SIZE) == sides
    assert model.training


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax"])
def test_a_head_that_sees_more_than_the_mean_is_not_taken_for_one(pool: str) -> None:
    assert averaged_sides(timm.create_model("test_resnet", num_classes=3, global_pool=pool), SIZE) is None


def test_tokens_are_no_maps() -> None:
    assert averaged_sides(timm.create_model("test_vit", num_classes=3, img_size=SIZE), SIZE) is None


def test_a_few_places_are_no_map() -> None:
    assert averaged_sides(timm.create_model("test_resnet", num_classes=3), 64) is None


def test_a_head_that_takes_a_certain_size_only_is_not_taken_for_an_average() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * SIZE * SIZE, 2)

        def forward_features(self, image: torch.Tensor) -> torch.Tensor:
            return image

        def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return features if pre_logits else self.head(features.flatten(1))

    assert averaged_sides(Fixed(), SIZE) is None
