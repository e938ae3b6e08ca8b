import copy

import timm
import torch
from torch import nn

from imago.training.activation import LeanReLU6, keep_less


def kept_bytes(network: nn.Module, pictures: torch.Tensor) -> int:
    """Return what a step keeps for its gradients."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(pictures)
    return sum(storages.values())


def gradients(network: nn.Module, pictures: torch.Tensor) -> list[torch.Tensor]:
    network(pictures).square().sum().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_a_mobilenet_learns_the_same_to_the_bit_and_keeps_a_third_less() -> None:
    torch.manual_seed(0)
    usual = timm.create_model("mobilenetv2_050", num_classes=3).train()
    lean = copy.deepcopy(usual)
    keep_less(lean)
    assert sum(isinstance(module, LeanReLU6) for module in lean.modules()) == 35
    pictures = torch.randn(8, 3, 112, 112)
    assert kept_bytes(copy.deepcopy(lean), pictures) < 0.75 * kept_bytes(copy.deepcopy(usual), pictures)
    found = zip(gradients(usual, pictures), gradients(lean, pictures), strict=True)
    assert all(torch.equal(theirs, ours) for theirs, ours in found)
    assert torch.equal(usual.eval()(pictures), lean.eval()(pictures))


def test_what_is_given_to_it_without_a_gradient_is_answered_as_by_torch() -> None:
    values = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0])
    assert LeanReLU6(inplace=False)(values).tolist() == [0, 0, 3, 6, 6]
    assert values.tolist() == [-1, 0, 3, 6, 7]
