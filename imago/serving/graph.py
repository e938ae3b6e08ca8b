"""Turns a timm classifier into ONNX graphs: the whole of it, and its head alone."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imago.quiet import quiet
from imago.training.head import averaged_sides, embed, head_of

_TRACED = 2  # a batch of one would be taken for a constant


class Whole(nn.Module):
    """A classifier that also gives what its head saw, and the maps that this is the mean of, where it is one."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model = model
        self._linear = head_of(model, image_size) is not None
        self._sides = averaged_sides(model, image_size)
        self.outputs = ["logits", "embedding"] + (["maps"] if self._sides else [])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits (N, C), embedding (N, D) and maps (N, D', places) of pictures (N, 3, H, W)."""
        model: Any = self.model
        features = model.forward_features(image)
        embedding = embed(model, features)
        logits = model.get_classifier()(embedding) if self._linear else model.forward_head(features)
        if self._sides is None:
            return logits, embedding
        maps = features.movedim(self._sides, (2, 3)).flatten(2)  # as they are, ONNX Runtime would fuse less
        return logits, embedding, maps


class Head(nn.Module):
    """A classifier's head, given the mean of its maps instead of them."""

    def __init__(self, model: nn.Module, sides: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self._sides = sides

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C) of means (N, D')."""
        model: Any = self.model
        rows, columns = self._sides
        logits: torch.Tensor = model.forward_head(mean.unsqueeze(rows).unsqueeze(columns))
        return logits


def write_graph(model: nn.Module, image_size: int, path: Path) -> None:
    """Write the graph `image` (N, 3, image_size, image_size) → `logits`, `embedding`, for any N of 1 or more.

    Where the head takes the mean over the places of the last features, these are `maps`, the places row by row.
    """
    whole = Whole(model.eval(), image_size)
    _export(whole, torch.zeros(_TRACED, 3, image_size, image_size), "image", whole.outputs, path)


def write_head(model: nn.Module, image_size: int, path: Path) -> None:
    """Write the graph `mean` (N, D), of the maps that `write_graph` gives, → `logits`; nothing where it gives none."""
    sides = averaged_sides(model, image_size)
    if sides is None:
        return
    with torch.no_grad():
        features = model.eval().forward_features(torch.zeros(1, 3, image_size, image_size))  # type: ignore[operator]
    channels = features.movedim(sides, (2, 3)).shape[1]
    _export(Head(model, sides), torch.zeros(_TRACED, channels), "mean", ["logits"], path)


def _export(module: nn.Module, example: torch.Tensor, given: str, outputs: list[str], path: Path) -> None:
    """Write a graph with torch's own exporter, which works offline; nothing is said."""
    said_by = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    with quiet(*said_by), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        torch.onnx.export(
            module.eval(),
            (example,),
            path,
            input_names=[given],
            output_names=outputs,
            dynamic_shapes={given: {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
