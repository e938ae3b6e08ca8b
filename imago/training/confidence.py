"""What the validation pictures say of a network's certainty: how to scale it, and from where on it answers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from imago.config import TrainingConfig
from imago.evaluation.calibration import fit_reject_threshold, fit_temperature, softmax
from imago.training.datamodule import PictureDataModule
from imago.training.recipe import working_device

_COVERAGE = 0.95
_LOWEST_CERTAINTY = 0.5


@dataclass(frozen=True)
class Confidence:
    """By what the logits are divided, and the least probability that an answer has."""

    temperature: float
    reject_threshold: float


def fit_confidence(network: nn.Module, data: PictureDataModule, training: TrainingConfig) -> Confidence:
    """Fit both to the validation pictures; the network, in evaluation mode, is on the CPU afterwards."""
    logits, labels = _validate(network.to(working_device(training)), data)
    network.cpu()
    temperature = fit_temperature(logits, labels)
    return Confidence(temperature, _reject_threshold(softmax(logits, temperature), labels, training))


def _validate(network: nn.Module, data: PictureDataModule) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rows, device = [], next(network.parameters()).device
    with torch.inference_mode():
        for images, labels in data.val_dataloader():
            rows.append((network(images.to(device)).cpu().numpy(), labels.numpy()))
    logits, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
    return logits, labels


def _reject_threshold(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], training: TrainingConfig
) -> float:
    """Return the threshold that reaches what was asked for; where nothing was, what is more likely than not stands."""
    if training.reject_error is not None:
        return fit_reject_threshold(probabilities, labels, target_error=training.reject_error)
    if training.reject_coverage is not None:
        return fit_reject_threshold(probabilities, labels, coverage=training.reject_coverage)
    return min(fit_reject_threshold(probabilities, labels, coverage=_COVERAGE), _LOWEST_CERTAINTY)
