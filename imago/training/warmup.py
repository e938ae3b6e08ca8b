"""How a head begins: fitted on frozen features where the backbone has learned before, else undecided."""

import time

import torch
from torch import nn
from torch.nn import functional

from imago.history import EpochResult
from imago.training.features import Features, fit_head


def warm_up(head: nn.Linear, train: Features, val: Features, started: float) -> EpochResult:
    """Give a network's head the weights that were fitted on its features, and return how it does, as epoch 0.

    `started` is when their computation was, by the monotonic clock.
    """
    fitted = fit_head(train, val, head.out_features)
    head.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        losses = [functional.cross_entropy(fitted(features), labels).item() for features, labels in (train, val)]
        accuracy = (fitted(val[0]).argmax(1) == val[1]).float().mean().item()
    return EpochResult(0, losses[0], losses[1], accuracy, time.monotonic() - started)


def zero_head(network: nn.Module) -> None:
    """Let a random network begin undecided: a random head's large gradients cost it the first epochs."""
    head = network.get_classifier()  # type: ignore[operator]
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
