"""Imago's training beside a plain timm loop, and its head on features computed once beside one trained in epochs."""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import Figure, compare, show
from imago.config import ModelConfig, SyntheticConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.synthetic import synthetic_dataset
from imago.progress import Lines
from imago.training.classifier import create_classifier, preprocessing_of
from imago.training.datamodule import PictureDataModule
from imago.training.features import compute_features, fit_head
from imago.training.trainer import train

ARCHITECTURE = "mobilenetv3_small_100"
BATCH, EPOCHS = 32, 2
HEAD_EPOCHS = 5


def figures(per_class: int = 40, image_size: int = 96, rounds: int = 2) -> Iterator[Figure]:
    """Measure on eight species from random weights."""
    synthetic = SyntheticConfig(species=8, per_class_train=per_class, per_class_val=8, per_class_test=1)
    dataset = synthetic_dataset(synthetic, image_size, seed=0)
    pictures = len(dataset.split("train"))
    yield compare(
        "training.epoch",
        lambda: _ours(dataset, image_size),
        lambda: _plain(dataset, image_size),
        rounds=rounds,
        per=EPOCHS * pictures,
    )
    model = create_classifier(ARCHITECTURE, "none", len(dataset.classes), image_size)
    data = PictureDataModule(
        dataset, dataset.classes, preprocessing_of(model, image_size),
        batch_size=BATCH, sizes=(image_size,), how=None, seed=0,
    )  # fmt: skip
    yield compare(
        "training.head",
        lambda: _head_on_features(model, data),
        lambda: _head_in_epochs(model, data),
        rounds=rounds,
        per=pictures,
    )


def _ours(dataset: ImageDataset, image_size: int) -> None:
    """Load, augment, train, average and validate as a run does, and keep the best epoch."""
    model, training = (
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TrainingConfig(epochs=EPOCHS, batch_size=BATCH),
    )
    with tempfile.TemporaryDirectory() as scratch:
        train(
            dataset,
            model,
            training,
            image_size=image_size,
            seed=0,
            workdir=Path(scratch),
            reporter=Lines(io.StringIO()),
        )


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures decoded each time that they are asked for, as a loop over a folder does."""

    def __init__(self, dataset: ImageDataset, image_size: int, *, augment: bool) -> None:
        self.dataset = dataset
        crop = (
            [transforms.RandomResizedCrop(image_size, scale=(0.6, 1)), transforms.RandomHorizontalFlip()]
            if augment
            else [transforms.Resize(image_size), transforms.CenterCrop(image_size)]
        )
        self.transform = transforms.Compose([*crop, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = Image.open(io.BytesIO(self.dataset.image(index))).convert("RGB")
        return self.transform(picture), self.dataset.classes.index(self.dataset.labels[index])


def _plain(dataset: ImageDataset, image_size: int) -> None:
    """Do what a first script with timm does."""
    model = timm.create_model(ARCHITECTURE, num_classes=len(dataset.classes))
    pictures = Pictures(dataset.split("train"), image_size, augment=True)
    training = DataLoader(pictures, batch_size=BATCH, shuffle=True, drop_last=True)
    validation = DataLoader(Pictures(dataset.split("val"), image_size, augment=False), batch_size=BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(EPOCHS):
        model.train()
        for images, labels in training:
            optimiser.zero_grad()
            functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            optimiser.step()
        model.eval()
        with torch.inference_mode():
            for images, labels in validation:
                functional.cross_entropy(model(images), labels).item()


def _head_on_features(model: nn.Module, data: PictureDataModule) -> None:
    layout = torch.channels_last
    model.to(memory_format=layout)
    train_features, val_features = (
        compute_features(model, loader, memory_format=layout)
        for loader in (data.plain_train_dataloader(), data.val_dataloader())
    )
    fit_head(train_features, val_features, len(set(data.train_labels)))


def _head_in_epochs(model: nn.Module, data: PictureDataModule) -> None:
    model.to(memory_format=torch.contiguous_format).eval()
    head = nn.Linear(model.head_hidden_size, len(set(data.train_labels)))
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for _ in range(HEAD_EPOCHS):
        for images, labels in data.plain_train_dataloader():
            with torch.no_grad():
                features = model.forward_head(model.forward_features(images), pre_logits=True)
            optimiser.zero_grad()
            functional.cross_entropy(head(features), labels).backward()
            optimiser.step()


if __name__ == "__main__":
    show(figures())
