"""Turns a timm classifier into an ONNX graph that answers with logits and embedding."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imago.training.head import embed, head_of

_TRACED = 2  # a batch of one would be taken for a constant


class LogitsAndEmbedding(nn.Module):
    """A classifier that also gives what its head saw."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model = model
        self._linear = head_of(model, image_size) is not None

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (N, C) and embedding (N, D) of pictures (N, 3, H, W)."""
        model: Any = self.model
        features = model.forward_features(image)
        embedding = embed(model, features)
        logits = model.get_classifier()(embedding) if self._linear else model.forward_head(features)
        return logits, embedding


def write_graph(model: nn.Module, image_size: int, path: Path) -> None:
    """Write the graph `image` (N, 3, image_size, image_size) → `logits`, `embedding`, for any N of 1 or more.

    Uses torch's own exporter; it works offline and says nothing.
    """
    both = LogitsAndEmbedding(model.eval(), image_size).eval()
    example = torch.zeros(_TRACED, 3, image_size, image_size)
    with _silent(), torch.no_grad():
        torch.onnx.export(
            both,
            (example,),
            path,
            input_names=["image"],
            output_names=["logits", "embedding"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
