"""Activations that keep less for their gradient than torch's own."""

from typing import Any

import torch
from torch import nn


class _ReLU6(torch.autograd.Function):
    """min(max(x, 0), 6) in place, whose gradient is read off the result."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        result = values.clamp_(0, 6)
        ctx.mark_dirty(result)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, result, 0.0, 6.0)  # type: ignore[no-any-return]


class LeanReLU6(nn.ReLU6):
    """ReLU6 in place, without the copy of its input that torch keeps: a third of a MobileNetV2's activations.

    The next layer keeps the result anyway. Values and gradients are torch's, to the bit.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        learning = torch.is_grad_enabled() and values.requires_grad and not values.is_leaf
        return _ReLU6.apply(values) if learning else super().forward(values)  # type: ignore[no-untyped-call, no-any-return]


def keep_less(network: nn.Module) -> None:
    """Put lean activations in place of a network's own that work in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.ReLU6 and child.inplace:
                setattr(module, name, LeanReLU6(inplace=True))
