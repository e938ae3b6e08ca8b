"""Finds the head of a timm classifier: what of it is new in each training, and what it sees of a picture."""

from typing import Any

import torch
from torch import nn

_SEED = 0
_FEWEST_PLACES = 4  # a side; of fewer, a map tells less than hiding parts of the picture does


def embed(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Return what the head sees of a model's features: (N, D)."""
    pooled: torch.Tensor = model.forward_head(features, pre_logits=True)
    return pooled.flatten(1)


def head_of(model: Any, image_size: int) -> nn.Linear | None:
    """Return the linear layer from embeddings to logits; None where the network ends otherwise.

    A picture of noise shows it: some networks normalise the embedding before that layer, or add a second head's logits.
    """
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        return None
    noise = _noise(model, image_size)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    training, hook = model.training, head.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    model.eval()
    try:
        with torch.no_grad():
            logits = model(noise)
            met = list(seen)
            embedding = embed(model, model.forward_features(noise))
    finally:
        hook.remove()
        model.train(training)
    return head if len(met) == 1 and _alike(met[0][0], embedding) and _alike(met[0][1], logits) else None


def averaged_sides(model: Any, image_size: int) -> tuple[int, int] | None:
    """Return which dimensions of the features, rows and columns, the head takes the mean over, before all else.

    None where it sees the features otherwise, or too few places of them to tell one from another. A picture of noise
    shows it: the head answers to the mean what it answers to the features.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.forward_features(_noise(model, image_size))
            if not isinstance(features, torch.Tensor) or features.ndim != 4:
                return None
            sides = (2, 3) if features.shape[2] == features.shape[3] else (1, 2)
            if min(features.shape[side] for side in sides) < _FEWEST_PLACES:
                return None
            mean = features.mean(sides, keepdim=True)
            alike = _alike(embed(model, mean), embed(model, features))
            alike &= _alike(model.forward_head(mean), model.forward_head(features))
    except (RuntimeError, AssertionError):  # of a head that takes so many places and no fewer
        return None
    finally:
        model.train(training)
    return sides if alike else None


def head_keys(model: nn.Module) -> set[str]:
    """Return the names of the head's weights; of all heads, where a network was distilled or has one beside it."""
    head = model.get_classifier()  # type: ignore[operator]
    heads = head if isinstance(head, tuple | list) else (head,)
    names = {id(module): name for name, module in model.named_modules()}
    keys = {f"{names[id(module)]}.{key}" for module in heads if id(module) in names for key in module.state_dict()}
    said = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    beside = (said,) if isinstance(said, str) else said
    return keys | {f"{name}.{kind}" for name in beside for kind in ("weight", "bias")} & model.state_dict().keys()


def _noise(model: nn.Module, image_size: int) -> torch.Tensor:
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(_SEED))
    return noise.to(next(model.parameters()).device)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
