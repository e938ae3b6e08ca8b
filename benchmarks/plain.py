"""What a competent user of timm and torch writes: a loop without Imago, that `benchmarks.training` measures against."""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import copy
import io
import math
from dataclasses import dataclass

import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from imago.config import DataConfig, SyntheticConfig
from imago.data.dataset import ImageDataset, Split
from imago.data.sources import load_dataset
from imago.data.synthetic import synthetic_dataset

BATCH, WORKERS = 32, 2
SPLITS: tuple[Split, ...] = ("train", "test")
BACKBONE_RATE, HEAD_RATE, WEIGHT_DECAY = 3e-4, 3e-3, 0.05


@dataclass(frozen=True)
class Task:
    """Pictures, and the network that is to tell them apart."""

    source: str | None  # None: synthetic moths
    architecture: str
    weights: str  # a folder in timm's layout, or `none`
    image_size: int
    per_class: int = 40  # synthetic training pictures

    def dataset(self) -> ImageDataset:
        """Read the pictures, or draw them."""
        if self.source is not None:
            return load_dataset(DataConfig(source=self.source), seed=0)
        moths = SyntheticConfig(species=8, per_class_train=self.per_class, per_class_val=8, per_class_test=8)
        return synthetic_dataset(moths, self.image_size, seed=0)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures decoded each time that they are asked for, as a loop over a folder does."""

    def __init__(
        self, dataset: ImageDataset, split: Split, model: nn.Module, image_size: int, *, augment: bool = False
    ) -> None:
        self.part = dataset.split(split)
        self.index = {label: position for position, label in enumerate(dataset.classes)}
        statistics = resolve_model_data_config(model)
        self.transform = create_transform(
            image_size,
            is_training=augment,
            scale=(0.5, 1.0),
            auto_augment="rand-m5-n1-mstd0.5" if augment else None,
            color_jitter=None,
            crop_pct=1.0,
            mean=statistics["mean"],
            std=statistics["std"],
        )

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = Image.open(io.BytesIO(self.part.image(index))).convert("RGB")
        return self.transform(picture), self.index[self.part.labels[index]]


def create(task: Task, classes: int) -> nn.Module:
    """Make the network with a new head."""
    if task.weights == "none":
        return timm.create_model(task.architecture, num_classes=classes)
    return timm.create_model(f"local-dir:{task.weights}", pretrained=True, num_classes=classes)


def probe(task: Task, dataset: ImageDataset) -> float:
    """Fit scikit-learn's logistic regression to the frozen network's features: the test accuracy."""
    model = create(task, 0).eval()
    columns = {}
    for split in SPLITS:
        features, labels = [], []
        for images, truth in _loader(Pictures(dataset, split, model, task.image_size)):
            with torch.inference_mode():
                features.append(model(images))
            labels.append(truth)
        columns[split] = torch.cat(features).numpy(), torch.cat(labels).numpy()
    fitted = LogisticRegression(max_iter=1000).fit(*columns["train"])
    return float(fitted.score(*columns["test"]))


def finetune(task: Task, dataset: ImageDataset, epochs: int) -> float:
    """Train the whole network at its full size, keep the best on validation: the test accuracy."""
    torch.manual_seed(0)
    model = create(task, len(dataset.classes))
    head = model.get_classifier().parameters()  # type: ignore[operator]
    of_head = {id(parameter) for parameter in head}
    groups = [
        {"params": [one for one in model.parameters() if (id(one) in of_head) == inside], "lr": rate}
        for inside, rate in ((False, BACKBONE_RATE), (True, HEAD_RATE))
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    training = _loader(Pictures(dataset, "train", model, task.image_size, augment=True), shuffle=True)
    validation = _loader(Pictures(dataset, "val", model, task.image_size))
    steps = epochs * len(training)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * min(1.0, step / steps))) / 2),
    )
    best, kept = -1.0, model.state_dict()
    for _ in range(epochs):
        model.train()
        for images, labels in training:
            optimiser.zero_grad()
            functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            optimiser.step()
            schedule.step()
        accuracy = _accuracy(model, validation)
        if accuracy >= best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return _accuracy(model, _loader(Pictures(dataset, "test", model, task.image_size)))


def _loader(pictures: Pictures, *, shuffle: bool = False) -> DataLoader[tuple[torch.Tensor, int]]:
    return DataLoader(
        pictures,
        batch_size=BATCH,
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=WORKERS,
        multiprocessing_context="fork",  # as in a script that is run by itself
    )


def _accuracy(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, int]]) -> float:
    model.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in loader:
            right += int((model(images).argmax(1) == labels).sum())
    return right / len(loader.dataset)  # type: ignore[arg-type]
