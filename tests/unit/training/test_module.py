"""The Lightning module decays what should decay, and lays memory out as the network likes it."""

import timm
import torch
from torch import nn

from imago.training.module import ClassifierModule, memory_format_of
from tests.unit.training.moths import ARCHITECTURE


def test_only_matrices_decay_and_the_head_has_its_own_rate() -> None:
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    module = ClassifierModule(
        model, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.05, label_smoothing=0.1
    )
    groups = list(module._groups())
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert rates[id(model.conv_stem.weight)] == (1e-3, 0.05)
    assert rates[id(model.bn1.weight)] == (1e-3, 0.0)
    assert rates[id(model.classifier.weight)] == (1e-2, 0.05)
    assert rates[id(model.classifier.bias)] == (1e-2, 0.0)
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_networks_with_batch_norm_are_laid_out_channels_last() -> None:
    assert memory_format_of(timm.create_model(ARCHITECTURE)) is torch.channels_last
    assert memory_format_of(timm.create_model("test_convnext")) is torch.contiguous_format
    assert memory_format_of(nn.Linear(2, 2)) is torch.contiguous_format
