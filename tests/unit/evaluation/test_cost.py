from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from imago.evaluation.cost import count_operations
from imago.evaluation.memory import answering_memory
from imago.serving.package import ModelPackage
from imago.training.classifier import create_classifier
from tests.packages import CLASSES, make_package

STATUS = Path("/proc/self/status")
told = pytest.mark.skipif(
    not STATUS.exists() or "VmHWM" not in STATUS.read_text(encoding="ascii"), reason="this system tells no peak"
)


def package_of(path: Path, model: nn.Module, architecture: str, image_size: int) -> ModelPackage:
    """Make a package that holds the weights of a model of timm's; its graph is another's."""
    package = make_package(path, image_size=image_size)
    spec = package.spec.model_copy(update={"architecture": architecture})
    (path / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    save_file(model.state_dict(), package.weights)
    return ModelPackage(path)


def products_of_layers(model: nn.Module, image_size: int) -> int:
    """Count the multiplications of the convolutions and linear layers by what goes in and comes out of each."""
    counted: list[int] = []

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        places = output.numel() // weight.shape[0]
        counted.append(places * weight.numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    return sum(counted)


def test_convolutions_are_counted_with_their_groups(tmp_path: Path) -> None:
    model = create_classifier("test_efficientnet", "none", len(CLASSES), 64)
    found = count_operations(package_of(tmp_path / "package", model, "test_efficientnet", 64))
    assert found == (sum(weight.numel() for weight in model.parameters()), products_of_layers(model, 64))


def test_attention_is_counted_though_its_kernel_is_fused(tmp_path: Path) -> None:
    model = create_classifier("test_vit", "none", len(CLASSES), 160)
    found = count_operations(package_of(tmp_path / "package", model, "test_vit", 160))
    tokens, width, blocks = 101, 64, 6  # 10 × 10 patches of 16 pixels, and the class token
    assert found is not None
    assert found[1] == products_of_layers(model, 160) + 2 * tokens**2 * width * blocks


def test_architecture_that_timm_does_not_know_is_not_counted(tmp_path: Path) -> None:
    assert count_operations(make_package(tmp_path / "package")) is None


@told
def test_memory_grows_with_the_graph(tmp_path: Path) -> None:
    small, large = make_package(tmp_path / "small"), make_package(tmp_path / "large")
    graph = onnx.load(large.onnx)
    wide = np.random.default_rng(0).normal(size=(3, 2_000_000)).astype(np.float32)  # 24 MB, twice
    graph.graph.initializer.extend([numpy_helper.from_array(wide, "up"), numpy_helper.from_array(wide.T, "down")])
    graph.graph.node.extend(
        [helper.make_node("MatMul", ["embedding", "up"], ["wide"]), helper.make_node("MatMul", ["wide", "down"], ["z"])]
    )
    graph.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 3]))
    onnx.save(graph, large.onnx)
    few, many = answering_memory(small), answering_memory(large)
    assert few is not None
    assert many is not None
    assert 0 < few < 40_000_000
    assert many - few > 40_000_000


@told
def test_peak_before_the_graph_is_loaded_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_package(tmp_path / "package")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not forget a peak")
    (tmp_path / "sitecustomize.py").write_text("bytes(range(256)) * 800_000\n", encoding="utf-8")  # 205 MB, then none
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = answering_memory(package)
    assert found is not None
    assert 0 < found < 40_000_000


@told
def test_memory_that_cannot_be_measured_is_unknown_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package = make_package(tmp_path / "package")
    monkeypatch.setattr("imago.evaluation.memory._PATIENCE", 0.01)
    assert answering_memory(package) is None
    monkeypatch.undo()
    package.onnx.write_bytes(b"no graph")
    assert answering_memory(package) is None
    late, broken = (record.getMessage() for record in caplog.records)
    assert late.endswith("model.onnx takes could not be measured: it took more than 0.01 s")
    assert "cannot be loaded" in broken
