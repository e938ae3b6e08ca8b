"""Which places of a picture an answer hangs on, by the gradients of the torch model. Not for the endpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from imago.errors import ImagoError

_BATCH = 8
_GATHERING = {"token", "map"}  # timm's global_pool of heads that do not treat all places alike
_BEFORE_ATTENTION = "norm1"  # timm's name: before it, the product all but vanishes, as a norm undoes any length
_UNUSUAL = (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, LookupError)
"""What captum and torch raise for a model that is not built as most of timm's are."""


class NoClassActivationError(ImagoError):
    """The architecture keeps no grid of features that a map could be read from."""


def class_activation_maps(
    module: nn.Module, pixels: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return how much of the answer hangs on each place: (N, S, S) float32 in [0, 1], 1 where most of it does.

    `pixels` (N, 3, S, S) is preprocessed as for the model, `classes` (N,) says of which class each map is. A place's
    share is gradient times activation, summed over the channels, of what the head is given (HiResCAM, Draelos and
    Carin 2020, https://arxiv.org/abs/2011.08891; Grad-CAM where the head averages the places); what speaks against
    the class is 0. Where a class token or a query gathers the places instead, most of it before the last block, it is
    the same product for what each attention is given, summed over the blocks, whether it speaks for or against,
    less what every place has. Where convolutions would make it lean to one side, it is averaged over
    mirror images.

    Raises NoClassActivationError where the architecture cannot be read like that.
    """
    size = pixels.shape[-1]
    maps = [np.zeros((0, size, size), dtype=np.float32)]
    with _evaluating(module):
        for start in range(0, len(pixels), _BATCH):
            part = slice(start, start + _BATCH)
            try:
                heat = _of_mirrored(module, torch.from_numpy(pixels[part]), torch.from_numpy(classes[part]))
            except _UNUSUAL as error:
                raise NoClassActivationError(f"The model's gradients cannot be had: {error}") from error
            if not heat.isfinite().all():
                raise NoClassActivationError("The gradients of the model are not finite.")
            strongest = heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            maps.append((heat / strongest).numpy())
    return np.concatenate(maps)


def _of_mirrored(module: nn.Module, pixels: Tensor, classes: Tensor) -> Tensor:
    """Return the map; of a network that leans to one side, its mean with those of the mirror images."""
    turns: list[list[int]] = [[], [3], [2], [2, 3]] if leans(module) else [[]]
    heats = [_heat(module, pixels.flip(sides), classes).flip([side - 1 for side in sides]) for sides in turns]
    return torch.stack(heats).mean(0)


def leans(module: nn.Module) -> bool:
    """Tell whether places of the last features lie before their middle in the picture.

    Strided convolutions of odd kernels do that: each is about the first of the pixels that it passes over, which adds
    up to half a stride of the whole network. Those of patches, as wide as their stride, do not.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return any(layer.stride[0] > 1 and layer.kernel_size[0] % 2 == 1 for layer in convolutions)


def _heat(module: nn.Module, pixels: Tensor, classes: Tensor) -> Tensor:
    size = pixels.shape[-1]
    if getattr(module, "global_pool", None) not in _GATHERING:
        reader = _FromFeatures(module)
        [evidence] = _evidence(reader, [reader.features], pixels, classes)
        places = _places(evidence, getattr(module, "num_prefix_tokens", None))
        if places is None:
            raise NoClassActivationError(f"The model's features {tuple(evidence.shape)} are no square grid.")
        return _enlarged(places.relu(), size)
    norms = [layer for name, layer in module.named_modules() if name.rpartition(".")[2] == _BEFORE_ATTENTION]
    found = _evidence(_Whole(module), norms, pixels, classes) if norms else []
    prefix = getattr(module, "num_prefix_tokens", None)
    grids = [places for evidence in found if (places := _places(evidence, prefix)) is not None]
    if not grids:
        raise NoClassActivationError("The model gathers its features, and no attention is found that does so.")
    heat = torch.stack([_enlarged(places.abs(), size) for places in grids]).sum(0)
    return heat - heat.amin(dim=(1, 2), keepdim=True)


class _FromFeatures(nn.Module):
    """The model, with a name for what its head is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.features = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.module.forward_features(pixels)  # type: ignore[operator]
        if not isinstance(features, Tensor):
            raise NoClassActivationError("The model has several streams of features.")
        return _centred(self.module.forward_head(self.features(features)))  # type: ignore[operator]


class _Whole(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        return _centred(self.module(pixels))


def _evidence(reader: nn.Module, layers: list[nn.Module], pixels: Tensor, classes: Tensor) -> list[Tensor]:
    """Return gradient times activation of what each layer gives."""
    from captum.attr import LayerGradientXActivation

    found = LayerGradientXActivation(reader, layers).attribute(pixels, target=classes)
    return [evidence.detach() for evidence in found if isinstance(evidence, Tensor)]


def _places(evidence: Tensor, prefix: int | None) -> Tensor | None:
    """Sum (N, C, H, W), (N, H, W, C) or (N, tokens, C) over the channels: (N, H, W), or None for no square grid."""
    if evidence.ndim == 4:
        return evidence.sum(1 if evidence.shape[2] == evidence.shape[3] else 3)
    if evidence.ndim != 3:
        return None
    tokens = evidence.sum(2)
    side = isqrt(max(0, tokens.shape[1] - (prefix or 0)))
    first = tokens.shape[1] - side * side
    if side == 0 or first != (first if prefix is None else prefix):
        return None
    return tokens[:, first:].reshape(-1, side, side)


def _enlarged(places: Tensor, size: int) -> Tensor:
    return nn.functional.interpolate(places[:, None], (size, size), mode="bilinear")[:, 0]


def _centred(logits: Tensor) -> Tensor:
    """Take the mean from the logits: what speaks for every class alike speaks for none."""
    return logits - logits.mean(dim=1, keepdim=True)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
