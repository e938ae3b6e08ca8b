"""A map of class activation can be read from any family of networks, or it is said that it cannot."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from imago.evaluation.class_activation import NoClassActivationError, class_activation_maps, leans
from imago.evaluation.explain import class_activation_map, encode
from imago.serving.graph import write_graph, write_head
from imago.serving.runtime import Runtime
from imago.training.classifier import create_classifier
from tests.packages import make_package

FAMILIES = {  # a small member of each, and a size in pixels that it takes
    "test_resnet": 64,
    "mobilenetv3_small_050": 64,
    "test_efficientnet": 64,
    "test_convnext": 64,
    "test_mambaout": 64,  # its channels are last
    "test_vit": 64,
    "test_vit_relpos": 160,  # no class token
    "deit_tiny_distilled_patch16_224": 224,  # two tokens before the places
    "swin_tiny_patch4_window7_224": 224,
    "test_coatnet": 64,
    "mixer_s32_224": 224,
    "xcit_nano_12_p16_224": 64,  # attention over channels, then a class token
    "pit_ti_224": 224,  # a grid that shrinks beside its class token
}


@pytest.mark.parametrize(("architecture", "size"), FAMILIES.items())
def test_a_map_is_as_large_as_the_picture_and_tells_places_apart(architecture: str, size: int) -> None:
    torch.manual_seed(0)
    module = create_classifier(architecture, "none", 3, size)
    if isinstance(head := module.get_classifier(), nn.Linear):
        nn.init.normal_(head.weight)  # some heads start at zero
    pixels = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    pixels[:, :, : size // 2] *= 3
    with torch.inference_mode():
        answers = module.eval()(torch.from_numpy(pixels)).argmax(dim=1).numpy()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    maps = class_activation_maps(module.train(), pixels, answers)
    assert maps.shape == (2, size, size)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert np.ptp(maps, axis=(1, 2)).max() > 0.01
    assert maps.max() == pytest.approx(1.0, abs=0.1)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize("architecture", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_mambaout"])
def test_the_endpoint_s_map_is_the_torch_model_s(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = create_classifier(architecture, "none", 3, 128).eval()
    nn.init.normal_(module.get_classifier().weight)
    package = make_package(tmp_path / "package", image_size=128, maps_lean=leans(module))
    write_graph(module, 128, package.onnx)
    write_head(module, 128, package.head)
    runtime = Runtime(package)
    rgb = np.random.default_rng(0).integers(0, 256, size=(128, 128, 3), dtype=np.uint8)
    rgb[64:, 64:] //= 4
    pixels = runtime.preprocess(encode(rgb, "PNG"))[None]
    with torch.inference_mode():
        answer = module(torch.from_numpy(pixels)).argmax(dim=1).numpy()
    [expected] = class_activation_maps(module, pixels, answer)
    found = class_activation_map(runtime, rgb)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_an_architecture_without_a_grid_is_refused() -> None:
    module = create_classifier("tnt_s_legacy_patch16_224", "none", 2, 224)
    with pytest.raises(NoClassActivationError, match="no attention is found"):
        class_activation_maps(module, np.zeros((1, 3, 224, 224), np.float32), np.zeros(1, np.int64))
