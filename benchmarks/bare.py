"""The steps of the training pipeline one after the other, without Lightning, ZenML, MLflow and checkpoints."""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import os
import tempfile
from pathlib import Path

import torch

from benchmarks.plain import Task
from imago.allocator import kept_memory
from imago.config import DataConfig, EvaluationConfig, GateConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.statistics import compute_statistics
from imago.data.validation import validate
from imago.evaluation.evaluate import evaluate
from imago.evaluation.gate import decide
from imago.history import EpochResult
from imago.serving.export import export_package
from imago.training.classifier import create_classifier, has_fixed_size, preprocessing_of
from imago.training.datamodule import Batch, PictureDataModule
from imago.training.layout import measured_memory_format
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once, recipe_for
from imago.training.trainer import TrainedModel


def module_and_data(
    task: Task, dataset: ImageDataset, training: TrainingConfig, layouts: Path | None = None
) -> tuple[ClassifierModule, PictureDataModule]:
    """Make the network and the batches that `train` would; `layouts` has what was measured of the layout before."""
    network = create_classifier(task.architecture, task.weights, len(dataset.classes), task.image_size)
    fixed = has_fixed_size(task.architecture)
    recipe = recipe_for(training, pretrained=task.weights != "none", image_size=task.image_size, fixed_size=fixed)
    data = PictureDataModule(
        dataset, dataset.classes, preprocessing_of(network, task.image_size),
        batch_size=training.batch_size, at_once=at_once(training), sizes=recipe.sizes, how=recipe.augmentation, seed=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        layout = measured_memory_format(network, task.architecture, task.image_size, layouts or Path(scratch))
    return ClassifierModule(network, training, recipe, data.train_labels, layout), data


def make_step(
    module: ClassifierModule, optimiser: torch.optim.Optimizer, batch: Batch, training: TrainingConfig
) -> None:
    """Make a step as `ClassifierModule.training_step` does, by hand."""
    images, labels = batch
    parts, smoothing = -(-len(labels) // at_once(training, images.shape[-1])), training.label_smoothing
    optimiser.zero_grad()
    for some, truth in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
        loss = torch.nn.functional.cross_entropy(module(some), truth, label_smoothing=smoothing, reduction="sum")
        (loss / len(labels)).backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), training.clip_norm)
    optimiser.step()


def pipeline(task: Task, epochs: int, scratch: Path) -> float:
    """Check the data, train, export, evaluate, decide and build the Bento: the test accuracy."""
    own = Path(tempfile.mkdtemp(dir=scratch))
    os.environ["BENTOML_HOME"] = str(own / "bentoml")
    from imago.serving.bento import build_bento

    dataset, checks = task.dataset(), DataConfig()
    validation = validate(dataset, compute_statistics(dataset, max_pixels=checks.max_pixels), checks)
    accepted = dataset.without(validation.quarantined)
    trained = _loop(task, accepted, epochs, scratch / "home" / "layouts")
    package = export_package(trained, accepted, own / "model", name="bench", weights=task.weights, seed=0)
    report = evaluate(package, accepted, EvaluationConfig(robustness=False), 0)
    decide(report, None, GateConfig(min_accuracy=0))
    build_bento(package, name="bench", version=str(epochs))
    return report.metrics.accuracy


def _loop(task: Task, dataset: ImageDataset, epochs: int, layouts: Path) -> TrainedModel:
    training = TrainingConfig(epochs=epochs, train_size=task.image_size)
    module, data = module_and_data(task, dataset, training, layouts)
    loader = data.train_dataloader()
    groups = list(module.parameter_groups())
    optimiser = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, epochs * len(loader), cycle_momentum=False)
    history = []
    with kept_memory():
        for epoch in range(epochs):
            loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
            module.train()
            for batch in loader:
                make_step(module, optimiser, batch, training)
                schedule.step()
            module.eval()
            with torch.inference_mode():
                right = [float((module(images).argmax(1) == labels).sum()) for images, labels in data.val_dataloader()]
            history.append(EpochResult(epoch + 1, 0.0, 0.0, sum(right) / len(data.val_labels), 0.0))
    preprocessing = preprocessing_of(module.model, task.image_size)
    return TrainedModel(
        module.model, task.architecture, dataset.classes, preprocessing, 1.0, 0.0, tuple(history), history[-1]
    )
