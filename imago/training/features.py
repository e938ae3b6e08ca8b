"""Fits the head alone, on features that the frozen backbone computes once."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from imago.dependencies import digest_of, sources_of
from imago.files import newest_first, replacing
from imago.progress import Reporter
from imago.training.datamodule import PictureDataModule
from imago.training.head import embed

Features = tuple[torch.Tensor, torch.Tensor]
"""Embeddings (N, D) of pictures, and their labels (N,)."""

_KEPT = 8  # files of features
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
_PENALTY = 1e-2  # of a head that only asks which labels are odd: it must not learn these by heart
_STEPS, _LEAST_CHANGE = 50, 1e-5


def features_of(
    network: nn.Module,
    data: PictureDataModule,
    layout: torch.memory_format,
    reporting: Reporter,
    cache: Path | None,
) -> tuple[Features, Features]:
    """Return what the head sees of the training and validation pictures, from the `cache` folder once known."""

    def compute() -> tuple[Features, Features]:
        reporting.start("features", len(data.train_labels) + len(data.val_labels))
        network.to(memory_format=layout)  # type: ignore[call-overload]
        train, val = (
            compute_features(network, loader, memory_format=layout, on_batch=reporting.advance)
            for loader in (data.plain_train_dataloader(), data.val_dataloader())
        )
        return train, val

    if cache is None:
        return compute()
    return cached_features(cache / f"{_key(network, data)}.safetensors", compute)


def compute_features(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    on_batch: Callable[[int], None] | None = None,
) -> Features:
    """Return the embeddings (N, D) that the model, in evaluation mode, gives pictures, and their labels (N,)."""
    model.eval()
    device = next(model.parameters()).device
    features, labels = [], []
    with torch.no_grad():
        for images, truth in batches:
            maps = model.forward_features(images.to(device, memory_format=memory_format))  # type: ignore[operator]
            features.append(embed(model, maps).cpu())
            labels.append(truth)
            if on_batch is not None:
                on_batch(len(truth))
    return torch.cat(features), torch.cat(labels)


def cached_features(path: Path, compute: Callable[[], tuple[Features, Features]]) -> tuple[Features, Features]:
    """Return the features of the training and validation pictures that a file holds, computed and kept there if new."""
    try:
        stored = load_file(path)
        return (stored["train"], stored["train_labels"]), (stored["val"], stored["val_labels"])
    except (OSError, KeyError, SafetensorError):  # not there yet, or damaged
        train, val = compute()
    with replacing(path) as partial:  # written by Python, whose errors tell a full disk
        partial.write_bytes(save({"train": train[0], "train_labels": train[1], "val": val[0], "val_labels": val[1]}))
    for old in newest_first(path.parent.glob("*.safetensors"))[_KEPT:]:
        old.unlink(missing_ok=True)
    return train, val


def _key(network: nn.Module, data: PictureDataModule) -> str:
    """Return a digest of what decides the features: the backbone, its pictures, and the code that shows them to it."""
    shown = (data.contents, data.preprocessing, data.how is None)
    by = (torch.__version__, timm.__version__, digest_of(sources_of(__name__)))
    digest = hashlib.sha256(repr((shown, by)).encode())
    head = {value.data_ptr() for value in network.get_classifier().state_dict().values()}  # type: ignore[operator]
    for name, value in network.state_dict().items():
        if value.data_ptr() not in head:
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def fit_head(train: Features, val: Features, num_classes: int) -> nn.Linear:
    """Fit a logistic regression on features; its penalty is the one whose head finds the validation labels likeliest.

    The features are standardised for the fit, and the scale then folded into the head's weights.
    """
    features, labels = train
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-3)
    standard, held_out = (features - mean) / scale, (val[0] - mean) / scale
    head = _undecided(features.shape[1], num_classes)
    best_loss, best = float("inf"), head.state_dict()
    for penalty in PENALTIES:
        _minimise(head, standard, labels, penalty)
        with torch.no_grad():
            loss = functional.cross_entropy(head(held_out), val[1]).item()
        if loss < best_loss:
            best_loss, best = loss, {name: value.clone() for name, value in head.state_dict().items()}
    weight = best["weight"] / scale
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(best["bias"] - weight @ mean)
    return head


def out_of_sample_probabilities(features: Features, num_classes: int, folds: int) -> npt.NDArray[np.float64]:
    """Return what logistic regressions say of features that they were not fitted to: (N, num_classes)."""
    values, labels = features
    standard = (values - values.mean(0)) / values.std(0).clamp_min(1e-3)
    probabilities = np.zeros((len(labels), num_classes))
    place = np.empty(len(labels), dtype=np.int64)
    place[np.argsort(labels.numpy(), kind="stable")] = np.arange(len(labels)) % folds  # each fold has of every class
    for fold in range(folds):
        inside = torch.from_numpy(place == fold)
        head = _undecided(values.shape[1], num_classes)
        _minimise(head, standard[~inside], labels[~inside], _PENALTY)
        with torch.no_grad():
            probabilities[inside.numpy()] = head(standard[inside]).softmax(1).numpy()
    return probabilities


def _undecided(inputs: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(inputs, num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _minimise(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor, penalty: float) -> None:
    """Fit by L-BFGS, on one thread: over so small matrices several wait for each other more than they work.

    The gradient is written out, for torch's own engine begins threads on a GPU, after which no process may be forked.
    """
    optimiser = torch.optim.LBFGS(
        head.parameters(),
        max_iter=_STEPS,
        history_size=10,
        tolerance_change=_LEAST_CHANGE,
        line_search_fn="strong_wolfe",
    )

    truth = functional.one_hot(labels, head.out_features)

    @torch.no_grad()
    def closure() -> torch.Tensor:
        logs = head(features).log_softmax(1)
        wrong = (logs.exp() - truth) / len(labels)
        head.weight.grad = wrong.T @ features + penalty * head.weight
        head.bias.grad = wrong.sum(0)
        return functional.nll_loss(logs, labels) + penalty * head.weight.square().sum() / 2

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    finally:
        torch.set_num_threads(threads)
