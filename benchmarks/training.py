"""Imago's training beside a plain timm loop: time, memory, accuracy, and what the pipeline around it costs.

With no options it measures on synthetic moths from random weights what needs no more. Photographs and pretrained
weights, such as `--data FOLDER --weights FOLDER --architecture mobilenetv2_140`, add the probe and fine-tuning.
"""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import io
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import mean

import click
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import Figure, bare, compare, plain, show
from benchmarks.apart import apart, beside
from benchmarks.bare import make_step, module_and_data
from benchmarks.plain import Task
from imago.allocator import kept_memory
from imago.config import EvaluationConfig, ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.evaluation.evaluate import evaluate
from imago.home import ROOT
from imago.progress import Lines
from imago.serving.export import export_package
from imago.training.datamodule import Batch, DecodedPictures, View, collate
from imago.training.features import compute_features
from imago.training.mislabelled import find_mislabelled
from imago.training.trainer import TrainedModel, train

SYNTHETIC = Task(None, "mobilenetv3_large_100", "none", 224)
OF_ANY, OF_PRETRAINED = ("input", "memory", "pipeline"), ("probe", "finetune", "calibration", "labels")
PLAIN_EPOCHS = 5
FLIPPED = 0.05  # share of labels


def figures(task: Task = SYNTHETIC, seeds: tuple[int, ...] = (0,), only: tuple[str, ...] = ()) -> Iterator[Figure]:
    """Measure both sides of each part, or of `only` some; what compares accuracies takes weights."""
    parts = {
        "input": lambda: input_pipeline(task),
        "memory": lambda: peak_memory(task),
        "pipeline": lambda: pipeline_overhead(task),
        "probe": lambda: probing(task),
        "finetune": lambda: finetuning(task, seeds),
        "calibration": lambda: calibration(task),
        "labels": lambda: flipped_labels(task),
    }
    chosen = only or (OF_ANY if task.weights == "none" else tuple(parts))
    for name, measure in parts.items():
        if name in chosen:
            yield from measure()


def input_pipeline(task: Task, steps: int = 24) -> Iterator[Figure]:
    """Measure the loader alone, and a step fed by it, beside the same step on tensors in memory.

    At the first epoch's size, where pictures are trained on fastest.
    """
    training = TrainingConfig()
    module, data = module_and_data(task, task.dataset(), training)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4)
    held = list(islice(data.train_dataloader(), steps))
    count = sum(len(labels) for _, labels in held)

    def step(batches: Iterator[Batch]) -> None:
        module.train()
        for batch in batches:
            make_step(module, optimiser, batch, training)

    def load() -> None:
        for _ in islice(data.train_dataloader(), steps):
            pass

    with kept_memory():
        yield compare("training.input_pipeline", load, lambda: step(iter(held)), rounds=3, per=count)
        yield compare(
            "training.step",
            lambda: step(islice(data.train_dataloader(), steps)),
            lambda: step(iter(held)),
            rounds=5,
            per=count,
        )


def peak_memory(task: Task) -> Iterator[Figure]:
    """Measure batches of 32 at the full size, in processes of their own."""
    ours, theirs = apart(_full_size_epoch, task), apart(_plain_epoch, task)
    yield beside("training.peak_memory", ours.peak, theirs.peak, "MB")


def pipeline_overhead(task: Task, rounds: int = 2) -> Iterator[Figure]:
    """Measure an epoch of `run.py --pipeline training` beside the same steps one after the other, and what is fixed.

    What Lightning, ZenML, MLflow and checkpoints cost is the difference. Both run in turn, some times, and the least of
    each counts: what else the machine does can only add to it.
    """
    lengths = few, many = 1, 4
    with tempfile.TemporaryDirectory() as scratch:
        _pipeline(task, few, Path(scratch))  # which fills the caches of data and features
        sides = (
            lambda epochs: _pipeline(task, epochs, Path(scratch)),
            lambda epochs: apart(bare.pipeline, task, epochs, Path(scratch)).cpu,
        )
        spent = [[[side(epochs) for side in sides] for epochs in lengths] for _ in range(rounds)]
    ours, theirs = np.min(spent, axis=0).T.tolist()
    slopes = [(two - one) / (many - few) for one, two in (ours, theirs)]
    yield beside("training.pipeline_epoch", *slopes, "CPU seconds")
    yield beside("training.pipeline_fixed", ours[0] - few * slopes[0], theirs[0] - few * slopes[1], "CPU seconds")


def probing(task: Task) -> Iterator[Figure]:
    """Fit the head alone, twice: the second time its features are there."""
    with tempfile.TemporaryDirectory() as scratch:
        first, again = (apart(_probe, task, Path(scratch)) for _ in range(2))
    theirs = apart(_plain_probe, task)
    yield beside("training.probe", first.cpu, theirs.cpu, "CPU seconds")
    yield beside("training.probe_again", again.cpu, theirs.cpu, "CPU seconds")
    yield beside("training.probe_accuracy", first.result, theirs.result, "test accuracy", "higher")


def finetuning(task: Task, seeds: tuple[int, ...]) -> Iterator[Figure]:
    """Fine-tune by the default recipe, from each seed, beside five epochs of the plain loop."""
    ours = [apart(_finetune, task, seed) for seed in seeds]
    theirs = apart(_plain_finetune, task)
    with tempfile.TemporaryDirectory() as scratch:
        head = apart(_probe, task, Path(scratch)).result
    yield beside("training.finetune", mean(run.cpu for run in ours), theirs.cpu, "CPU seconds")
    for seed, run in zip(seeds, ours, strict=True):
        yield beside(f"training.finetune_accuracy.{seed}", run.result, theirs.result, "test accuracy", "higher")
    worst = min(run.result for run in ours)
    yield beside("training.finetune_beside_probe", worst, head, "test accuracy of the worst seed", "higher")
    yield beside("training.finetune_memory", max(run.peak for run in ours), theirs.peak, "MB")


def flipped_labels(task: Task) -> Iterator[Figure]:
    """Flip labels, and look for them: the precision where half of them are found, beside that of guessing."""
    dataset = task.dataset()
    module, data = module_and_data(task, dataset, TrainingConfig())
    features, labels = compute_features(module.model, data.plain_train_dataloader())
    rng = np.random.default_rng(0)
    rows = rng.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    classes = len(dataset.classes)
    given = labels.clone()
    given[rows] = (given[rows] + torch.from_numpy(rng.integers(1, classes, len(rows)))) % classes
    wrong = {str(row) for row in rows}
    suspects = find_mislabelled((features, given), [str(row) for row in range(len(given))], dataset.classes)
    found = np.cumsum([one.id in wrong for one in suspects or ()])
    enough = np.flatnonzero(found >= len(rows) / 2)
    precision = found[enough[0]] / (enough[0] + 1) if len(enough) else 0.0
    yield beside("training.flipped_labels", precision, FLIPPED, "precision", "higher")


def calibration(task: Task) -> Iterator[Figure]:
    """Measure the expected calibration error on the test pictures after temperature scaling, beside before."""
    dataset = task.dataset()
    trained = _trained(task, dataset, TrainingConfig(), 0)
    with tempfile.TemporaryDirectory() as scratch:
        package = export_package(trained, dataset, Path(scratch) / "model", name="bench", weights=task.weights, seed=0)
        report = evaluate(package, dataset, EvaluationConfig(robustness=False), 0)
    after, before = report.metrics.expected_calibration_error, report.metrics.uncalibrated_expected_calibration_error
    yield beside("training.calibration_error", after, before or after, "expected calibration error")


def _probe(task: Task, cache: Path) -> float:
    dataset = task.dataset()
    return _accuracy(_trained(task, dataset, TrainingConfig(epochs=0), 0, cache), dataset)


def _finetune(task: Task, seed: int) -> float:
    dataset = task.dataset()
    return _accuracy(_trained(task, dataset, TrainingConfig(), seed), dataset)


def _full_size_epoch(task: Task) -> float:
    training = TrainingConfig(epochs=1, train_size=task.image_size, warmup_head=False, batch_size=plain.BATCH)
    return _trained(task, task.dataset(), training, 0).best.val_accuracy


def _plain_probe(task: Task) -> float:
    return plain.probe(task, task.dataset())


def _plain_finetune(task: Task) -> float:
    return plain.finetune(task, task.dataset(), PLAIN_EPOCHS)


def _plain_epoch(task: Task) -> float:
    return plain.finetune(task, task.dataset(), 1)


def _pipeline(task: Task, epochs: int, scratch: Path) -> float:
    """Return the CPU seconds of the pipeline without what is not training: deployment and corrupted pictures."""
    moths = {"species": 8, "per_class_train": task.per_class, "per_class_val": 8, "per_class_test": 8}
    settings = {
        "model.architecture": task.architecture,
        "model.weights": task.weights,
        "data.image_size": task.image_size,
        "training.epochs": epochs,
        "training.train_size": task.image_size,
        "training.warmup_head": "false",
        "gate.min_accuracy": 0,
        "deploy.enabled": "false",
        "evaluation.robustness": "false",
        **{f"data.synthetic.{key}": value for key, value in moths.items()},
    }
    command = [sys.executable, str(ROOT / "run.py"), "--pipeline", "training", "--json", "--no-cache"]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    command += ["--data", task.source] if task.source else []
    places = {"IMAGO_HOME": "home", "IMAGO_REPORTS": "reports", "ZENML_CONFIG_PATH": "zenml"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {name: str(scratch / folder) for name, folder in places.items()}
    subprocess.run(command, check=True, env=environment, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _trained(
    task: Task, dataset: ImageDataset, training: TrainingConfig, seed: int, cache: Path | None = None
) -> TrainedModel:
    with tempfile.TemporaryDirectory() as scratch:
        return train(
            dataset,
            ModelConfig(architecture=task.architecture, weights=task.weights),
            training,
            image_size=task.image_size,
            seed=seed,
            workdir=Path(scratch),
            reporter=Lines(io.StringIO()),
            cache=cache,
        )


def _accuracy(trained: TrainedModel, dataset: ImageDataset) -> float:
    part = dataset.split("test")
    labels = [trained.classes.index(label) for label in part.labels]
    view = View(DecodedPictures(part, trained.preprocessing, square=True), labels, trained.preprocessing)
    right = 0
    with torch.inference_mode():
        for images, truth in DataLoader(view, batch_size=plain.BATCH, collate_fn=collate):
            right += int((trained.model(images).argmax(1) == truth).sum())
    return right / len(part)


@click.command()
@click.option("--data", help="A folder of photographs, with splits.")
@click.option("--weights", default="none", help="A folder in timm's local-dir layout.")
@click.option("--architecture", default=SYNTHETIC.architecture, show_default=True)
@click.option(
    "--image-size",
    type=click.IntRange(32, 1024),
    default=SYNTHETIC.image_size,
    show_default=True,
    help="Side of what the model sees, in pixels.",
)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of our fine-tuning, with commas.")
@click.option(
    "--only",
    type=click.Choice(OF_ANY + OF_PRETRAINED),
    multiple=True,
    help=f"May be repeated; {', '.join(OF_PRETRAINED)} take --weights.",
)
def main(data: str | None, weights: str, architecture: str, image_size: int, seeds: str, only: tuple[str, ...]) -> None:
    """Print one JSON line a figure."""
    if weights == "none" and (lacking := [name for name in only if name in OF_PRETRAINED]):
        raise click.UsageError(f"--only {', '.join(lacking)}: takes pretrained weights, add --weights FOLDER.")
    task = Task(data and str(Path(data).resolve()), architecture, weights, image_size)
    show(figures(task, tuple(int(seed) for seed in seeds.split(",")), only))


if __name__ == "__main__":
    main()
