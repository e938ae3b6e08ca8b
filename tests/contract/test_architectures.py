"""Any timm architecture with a classifier trains, is exported with the same answers, and can be read again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imago.config import ModelConfig, TrainingConfig
from imago.serving.export import PARITY, export_package, load_module
from imago.serving.runtime import Runtime
from imago.training.trainer import train
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
    runtime, part = Runtime(package), MOTHS.split("test")
    pixels = np.stack([runtime.preprocess(part.image(index)) for index in range(len(part))])
    with torch.inference_mode():
        logits = load_module(package).eval()(torch.from_numpy(pixels)) / trained.temperature
    assert np.abs(runtime.predict_array(pixels)[0] - logits.softmax(1).numpy()).max() <= PARITY
