"""Any timm architecture with a classifier trains, is exported with the same answers, and can be read again."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from imago.config import ModelConfig, TrainingConfig
from imago.data.transforms import decode, preprocess
from imago.errors import ConfigError
from imago.serving.export import PARITY, export_package, load_module
from imago.serving.runtime import Runtime
from imago.training.head import embed
from imago.training.trainer import TrainedModel, train
from tests.unit.training.moths import Silence, small_moths

FAMILIES = {  # a small member of each, and a size in pixels that it takes
    "test_resnet": 64,
    "test_efficientnet": 64,
    "test_byobnet": 64,
    "test_nfnet": 64,
    "test_convnext": 64,
    "test_mambaout": 64,
    "test_vit": 64,
    "test_vit_relpos": 160,
    "test_coatnet": 64,
    "mobilenetv3_small_050": 64,
    "ghostnet_050": 64,
    "regnetx_002": 64,
    "repghostnet_050": 64,
    "starnet_s1": 64,
    "edgenext_xx_small": 64,
    "mixer_s32_224": 224,
    "xcit_nano_12_p16_224": 64,
    "pit_ti_224": 224,
    "levit_128s": 224,
}
MOTHS = small_moths(train=8)


@pytest.mark.parametrize(("architecture", "size"), FAMILIES.items())
def test_a_family_trains_is_exported_alike_and_read_again(architecture: str, size: int, tmp_path: Path) -> None:
    trained = train(
        MOTHS,
        ModelConfig(architecture=architecture, weights="none"),
        TrainingConfig(epochs=1, batch_size=8),
        image_size=size,
        seed=0,
        workdir=tmp_path / "work",
        reporter=Silence(),
    )
    package = export_package(trained, MOTHS, tmp_path / "package", name="moths", weights="none", seed=0)
    runtime, network, part = Runtime(package), load_module(package).eval(), MOTHS.split("test")
    pixels = np.stack([runtime.preprocess(part.image(index)) for index in range(len(part))])
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels)) / trained.temperature
        expected = embed(network, network.forward_features(torch.from_numpy(pixels))).numpy()  # type: ignore[operator]
    answers, embeddings = runtime.predict_array(pixels)
    assert np.abs(answers - logits.softmax(1).numpy()).max() <= PARITY
    assert np.abs(expected).max() > 0.01  # after so few steps all answers are alike, and any graph would do for these
    assert np.abs(embeddings - expected).max() <= PARITY * np.abs(expected).max()


LINEAR = {"test_resnet": 64, "test_vit": 64, "test_convnext": 64, "ghostnet_050": 64}
OTHERWISE = {"efficientvit_m0": 224, "shvit_s1": 224, "levit_128s": 224, "dla46x_c": 64, "repvit_m0_9": 64}


def _learned(architecture: str, path: Path) -> str:
    """Keep weights whose batch norm has seen pictures: at the start it changes next to nothing."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.3, 3)
    save_file(model.state_dict(), path)
    return str(path)


@pytest.mark.parametrize(("architecture", "size"), (LINEAR | OTHERWISE).items())
def test_the_figures_of_a_head_fitted_alone_are_the_network_s(architecture: str, size: int, tmp_path: Path) -> None:
    moths, reporter = small_moths(train=8), Silence()
    weights = _learned(architecture, tmp_path / "learned.safetensors")

    def fit(epochs: int) -> TrainedModel:
        return train(
            moths,
            ModelConfig(architecture=architecture, weights=weights),
            TrainingConfig(epochs=epochs, batch_size=8),
            image_size=size,
            seed=0,
            workdir=tmp_path / str(epochs),
            reporter=reporter,
        )

    if architecture in OTHERWISE:
        with pytest.raises(ConfigError, match=f"{architecture} has no head that can be fitted alone"):
            fit(0)
        said = f"{architecture} does not end in one linear layer with a bias: its head is not fitted"
        assert said in reporter.stream.getvalue()
        return
    trained, part = fit(0), moths.split("val")
    pixels = np.stack([preprocess(decode(part.image(row)), trained.preprocessing) for row in range(len(part))])
    labels = torch.tensor([trained.classes.index(label) for label in part.labels])
    with torch.inference_mode():
        logits = trained.model(torch.from_numpy(pixels))
    assert trained.history[0].val_loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-3)
    assert trained.history[0].val_accuracy == (logits.argmax(1) == labels).float().mean().item()
    assert reporter.stream.getvalue() == ""
