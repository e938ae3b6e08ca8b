"""The Lightning module decays what should decay, and lays memory out as the network likes it."""

import pytest
import timm
import torch
from torch import nn

from imago.config import TrainingConfig
from imago.training.module import ClassifierModule
from imago.training.recipe import recipe_for
from tests.unit.training.moths import ARCHITECTURE, SIZE


def _module(model: nn.Module, **options: object) -> ClassifierModule:
    training = TrainingConfig.model_validate(options)
    recipe = recipe_for(training, pretrained=True, image_size=SIZE)
    return ClassifierModule(model, training, recipe, labels=[0, 0, 0, 1, 2, 2])


def test_only_matrices_decay_and_the_head_has_its_own_rate() -> None:
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    module = _module(model, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.05, layer_decay=1.0)
    groups = list(module.parameter_groups())
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert rates[id(model.conv_stem.weight)] == (1e-3, 0.05)
    assert rates[id(model.bn1.weight)] == (1e-3, 0.0)
    assert rates[id(model.classifier.weight)] == (1e-2, 0.05)
    assert rates[id(model.classifier.bias)] == (1e-2, 0.0)
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize("architecture", ["levit_128s", "deit_tiny_distilled_patch16_224"])
def test_both_heads_of_a_distilled_network_learn_as_heads(architecture: str) -> None:
    model = timm.create_model(architecture, num_classes=3)
    module = _module(model, learning_rate=1e-3, head_learning_rate=1e-2)
    rates = {id(parameter): group["lr"] for group in module.parameter_groups() for parameter in group["params"]}
    heads = [parameter for head in model.get_classifier() for parameter in head.parameters()]
    assert [rates[id(parameter)] for parameter in heads] == [1e-2] * len(heads)
    assert list(rates.values()).count(1e-2) == len(heads) > 2


def test_what_a_network_says_does_not_decay_does_not() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    module = _module(model, weight_decay=0.05)
    decays = {
        id(parameter): group["weight_decay"] for group in module.parameter_groups() for parameter in group["params"]
    }
    assert (decays[id(model.pos_embed)], decays[id(model.cls_token)]) == (0.0, 0.0)
    assert decays[id(model.blocks[0].attn.qkv.weight)] == 0.05


def test_lower_layers_learn_more_slowly_where_that_is_asked_for() -> None:
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    module = _module(model, learning_rate=1e-3, head_learning_rate=1e-2, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in module.parameter_groups() for parameter in group["params"]}
    assert rates[id(model.conv_stem.weight)] < rates[id(model.conv_head.weight)] <= 1e-3
    assert rates[id(model.classifier.weight)] == 1e-2


def test_rare_classes_weigh_more_where_that_is_asked_for() -> None:
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    assert _module(model).class_weights is None
    weights = _module(model, balance="loss").class_weights
    assert weights is not None
    assert weights[1] == 3 * weights[0] == 2 * weights[2]


def test_frozen_statistics_stay_and_others_move() -> None:
    batch = torch.rand(4, 3, SIZE, SIZE), torch.tensor([0, 1, 2, 0])
    for frozen in (True, False):
        module = _module(timm.create_model(ARCHITECTURE, num_classes=3), freeze_batch_norm=frozen).train()
        before = module.model.bn1.running_mean.clone()
        module.on_train_epoch_start()
        module(batch[0])
        assert torch.equal(module.model.bn1.running_mean, before) == frozen


def test_the_moving_average_is_what_is_judged() -> None:
    module = _module(timm.create_model(ARCHITECTURE, num_classes=3), ema_decay=0.9)
    assert module.judged is not module.model
    assert _module(module.model).judged is module.model
