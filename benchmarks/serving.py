"""A model package on ONNX Runtime, beside the same weights in eager torch: from a file's bytes to probabilities."""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks import Figure, compare, show
from imago.config import SyntheticConfig
from imago.data.synthetic import synthetic_dataset
from imago.data.transforms import Preprocessing
from imago.serving.export import export_package
from imago.serving.runtime import Runtime
from imago.training.classifier import create_classifier, preprocessing_of
from imago.training.trainer import EpochResult, TrainedModel

ARCHITECTURE = "mobilenetv3_small_100"


def figures(rounds: int = 40, image_size: int = 224) -> Iterator[Figure]:
    """Measure with one thread each, as one worker of the endpoint has it."""
    dataset = synthetic_dataset(
        SyntheticConfig(species=2, per_class_train=4, per_class_val=4, per_class_test=4), image_size, seed=0
    )
    with tempfile.TemporaryDirectory() as scratch, _one_thread():
        model = create_classifier(ARCHITECTURE, "none", len(dataset.classes), image_size).eval()
        preprocessing = preprocessing_of(model, image_size)
        untrained = EpochResult(0, 0.0, 0.0, 0.0, 0.0)
        trained = TrainedModel(model, ARCHITECTURE, dataset.classes, preprocessing, 1.0, 0.0, (untrained,), untrained)
        package = export_package(trained, dataset, Path(scratch) / "package", name="bench", weights="none", seed=0)
        runtime, images = Runtime(package), [dataset.image(index) for index in range(8)]
        for name, batch in (("serving.picture", images[:1]), ("serving.batch_of_8", images)):
            yield compare(
                name,
                lambda batch=batch: runtime.predict(batch),
                lambda batch=batch: _eager(model, preprocessing, batch),
                rounds=rounds,
                per=len(batch),
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _eager(model: nn.Module, preprocessing: Preprocessing, images: list[bytes]) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    size = (preprocessing.image_size, preprocessing.image_size)
    rows = []
    for data in images:
        picture = np.array(Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC))
        rows.append((torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - mean) / std)
    return model(torch.stack(rows)).softmax(dim=1)


if __name__ == "__main__":
    show(figures())
