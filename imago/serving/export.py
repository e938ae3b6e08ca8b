"""Writes a trained model as a package, and reads a package's weights back into torch."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

import imago
from imago.config import TrainingConfig
from imago.data.dataset import ImageDataset
from imago.errors import ImagoError
from imago.evaluation.calibration import softmax
from imago.evaluation.class_activation import leans
from imago.monitoring.prediction_store import prediction_row, to_table
from imago.serving.card import model_card
from imago.serving.graph import write_graph, write_head
from imago.serving.package import GoldenSample, ModelPackage, ModelSpec, Setting
from imago.serving.runtime import Prediction, Runtime
from imago.training.augment import Augmentation
from imago.training.classifier import create_classifier
from imago.training.mislabelled import find_mislabelled
from imago.training.trainer import TrainedModel

PARITY = 1e-4
"""How far the graph's probabilities may lie from torch's."""

_RECIPE = (
    *("epochs", "batch_size", "train_size", "learning_rate", "head_learning_rate", "layer_decay", "weight_decay"),
    *("label_smoothing", "augment", "mixup", "cutmix", "balance", "ema_decay", "clip_norm", "warmup_head"),
    *("freeze_batch_norm", "patience", "monitor", "precision", "devices", "nodes"),
)
_OFF = (None, False, 0, "", "none")
_GOLDEN = 8
_LOOKED_AT = 4  # pictures of a class among which its golden sample is chosen
_COMPARED = 32


def export_package(
    trained: TrainedModel,
    dataset: ImageDataset,
    path: Path,
    *,
    name: str,
    weights: str,
    seed: int,
    training: TrainingConfig | None = None,
) -> ModelPackage:
    """Write a package at `path`, which must not exist: whole, or not at all.

    With the configuration of the training, the package remembers its recipe.
    Raises ImagoError where the graph does not answer as the model does, or the folder cannot be written.
    """
    if path.exists():
        raise ImagoError(f"The model package {path} exists already; packages are never overwritten: remove it first.")
    with _appearing_whole(path) as folder:
        spec = _spec(trained, dataset, name=name, weights=weights, seed=seed, training=training)
        (folder / "golden").mkdir()
        (folder / "weights.safetensors").write_bytes(save(_tensors(trained.model)))
        write_graph(trained.model, spec.preprocessing.image_size, folder / "model.onnx")
        write_head(trained.model, spec.preprocessing.image_size, folder / "head.onnx")
        _write(folder / "spec.json", spec.model_dump_json(indent=2))
        _write(folder / "MODEL_CARD.md", model_card(spec, dataset.counts()))
        _write(folder / "golden" / "golden.json", "[]")
        if trained.train_features is not None:
            suspects = find_mislabelled(trained.train_features, trained.train_ids, trained.classes)
            if suspects is not None:
                _write(folder / "suspects.json", json.dumps([one.model_dump() for one in suspects], indent=2))
        pq.write_table(to_table([]), folder / "reference.parquet")
        runtime = Runtime(ModelPackage(folder), threads=os.cpu_count() or 1)
        _check_parity(trained.model, runtime, dataset)
        _write_reference(runtime, dataset, folder / "reference.parquet")
        _write_golden(runtime, dataset, folder / "golden")
    return ModelPackage(path)


def load_module(package: ModelPackage) -> nn.Module:
    """Rebuild the torch model of a package, in evaluation mode; its logits are before the temperature."""
    spec = package.spec
    model = create_classifier(spec.architecture, "none", len(spec.classes), spec.preprocessing.image_size)
    try:
        model.load_state_dict(load_file(package.weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ImagoError(f"The weights {package.weights} are not a whole '{spec.architecture}': {reason}") from error
    return model.eval()


@contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` that becomes it at the end, or vanishes where anything goes wrong."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ImagoError(f"The model package {path} cannot be written: {error.strerror}.") from error
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(path)
    except OSError as error:
        raise ImagoError(
            f"The model package {path} cannot be written: {error.strerror or error}. Nothing of it was kept."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spec(
    trained: TrainedModel, dataset: ImageDataset, *, name: str, weights: str, seed: int, training: TrainingConfig | None
) -> ModelSpec:
    return ModelSpec(
        name=name,
        architecture=trained.architecture,
        weights=weights,
        classes=trained.classes,
        preprocessing=trained.preprocessing,
        temperature=trained.temperature,
        reject_threshold=trained.reject_threshold,
        dataset_fingerprint=dataset.fingerprint,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "imago": imago.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": version("timm"),
            "onnxruntime": onnxruntime.__version__,
        },
        metrics=_metrics(trained),
        maps_lean=leans(trained.model),
        weights_license=trained.weights_license,
        spent=trained.spent,
        recipe=_recipe(trained, training) if training else {},
        history=trained.history,
    )


def _recipe(trained: TrainedModel, training: TrainingConfig) -> dict[str, Setting]:
    """Return how the weights were fitted, by the keys of training, and what was left open as it was filled in."""
    head: dict[str, Setting] = {
        "epochs": training.epochs,
        "warmup_head": trained.train_features is not None,
    }
    if not training.epochs or trained.recipe is None:
        return head
    settled = {
        "learning_rate": trained.recipe.learning_rate,
        "head_learning_rate": trained.recipe.head_learning_rate,
        "layer_decay": trained.recipe.layer_decay if trained.recipe.layer_decay < 1 else "",
        "train_size": ", ".join(f"{size}" for size in trained.recipe.sizes),
        "augment": _said(trained.recipe.augmentation),
        "monitor": training.monitor if training.patience else "",
        "precision": trained.recipe.precision,
        "devices": training.devices if training.devices > 1 else "",
        "nodes": training.nodes if training.nodes > 1 else "",
    }
    values = training.model_dump(include=set(_RECIPE)) | settled | head
    return {key: values[key] for key in _RECIPE if key == "epochs" or values[key] not in _OFF}


def _said(how: Augmentation | None) -> str:
    values = asdict(how) if how else {}
    if values.get("rand_augment"):
        values |= {"degrees": 0, "colour": 0}  # in whose place it stands
    said = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in values.items() if value}
    return ", ".join(f"{key} {value}" for key, value in said.items())


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's state as tensors that share no memory."""
    contiguous = torch.contiguous_format
    return {key: value.detach().cpu().clone(memory_format=contiguous) for key, value in model.state_dict().items()}


def _check_parity(model: nn.Module, runtime: Runtime, dataset: ImageDataset) -> None:
    part = dataset.split("val")
    step = max(1, len(part) // _COMPARED)
    batch = np.stack([runtime.preprocess(part.image(index)) for index in range(0, len(part), step)][:_COMPARED])
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(batch)).numpy()
    expected = softmax(logits, runtime.spec.temperature)
    difference = float(np.abs(expected - runtime.predict_array(batch)[0]).max())
    if runtime.has_maps:  # nothing else tells whether they, and the head, are the model's
        logits = runtime.head(runtime.maps(batch).mean(axis=2))
        difference = max(difference, float(np.abs(expected - softmax(logits, runtime.spec.temperature)).max()))
    if difference > PARITY:
        raise ImagoError(
            f"The ONNX graph of '{runtime.spec.architecture}' answers unlike the model it was made of: probabilities "
            f"differ by up to {difference:.2g}, more than {PARITY:g}. Choose another model.architecture."
        )


def _write_reference(runtime: Runtime, dataset: ImageDataset, path: Path) -> None:
    """Keep the validation pictures as if the endpoint had been asked for them and told their labels."""
    part = dataset.split("val")
    spec = runtime.spec
    rows = []
    for index, answer in enumerate(runtime.predict([part.image(index) for index in range(len(part))], top_k=1)):
        if isinstance(answer, Prediction):
            row = prediction_row(
                answer,
                prediction_id=f"reference-{index:06d}",
                time=datetime.fromisoformat(spec.created),
                model=spec.name,
                version="reference",
            )
            rows.append(row | {"feedback": part.labels[index]})
    pq.write_table(to_table(rows), path)


def _write_golden(runtime: Runtime, dataset: ImageDataset, folder: Path) -> None:
    part = dataset.split("test")
    if not len(part):
        part = dataset.split("val")
    samples = []
    for number, (index, answer) in enumerate(_surest(runtime, part)):
        suffix = PurePosixPath(part.ids[index]).suffix.lower()
        file = f"{number:02d}{suffix if suffix[1:].isalnum() else ''}"
        (folder / file).write_bytes(part.image(index))
        samples.append(GoldenSample(file=file, label=answer.label, probability=answer.probability))
    _write(folder / "golden.json", json.dumps([sample.model_dump() for sample in samples], indent=2))


def _surest(runtime: Runtime, part: ImageDataset) -> list[tuple[int, Prediction]]:
    """Return the surest answers, from as many classes as there may be samples: rounding must not change them."""
    by_class: dict[str, list[int]] = {}
    for index, label in enumerate(part.labels):
        by_class.setdefault(label, []).append(index)
    labels = sorted(by_class)
    spread = (
        [labels[position * len(labels) // _GOLDEN] for position in range(_GOLDEN)] if len(labels) > _GOLDEN else labels
    )
    answered = {label: _answers(runtime, part, by_class[label][:_LOOKED_AT]) for label in spread}
    turns = [
        (turn, label, answer)
        for label, answers in answered.items()
        for turn, answer in enumerate(sorted(answers, key=lambda row: -row[1].probability))
    ]
    return [answer for _, _, answer in sorted(turns, key=lambda row: row[:2])][:_GOLDEN]


def _answers(runtime: Runtime, part: ImageDataset, indices: Sequence[int]) -> list[tuple[int, Prediction]]:
    answers = runtime.predict([part.image(index) for index in indices], top_k=1)
    return [(index, row) for index, row in zip(indices, answers, strict=True) if isinstance(row, Prediction)]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _metrics(trained: TrainedModel) -> dict[str, float]:
    """Return what the validation pictures gave, for the head on frozen features as well, where it was fitted."""
    head = [result.val_accuracy for result in trained.history if result.epoch == 0]
    figures = {"val_accuracy": trained.best.val_accuracy, "val_loss": trained.best.val_loss}
    figures |= {"best_epoch": float(trained.best.epoch), "epochs": float(trained.history[-1].epoch)}
    return figures | ({"head_val_accuracy": head[0]} if head else {})
