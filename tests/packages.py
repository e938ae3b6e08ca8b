"""Model packages made by hand for the tests: the smallest graph that a whole package can hold, and no training.

The graph answers by colour: mean of the normalised picture (the embedding) → linear → logits. Each class has a colour
of its own, and a picture is given the class whose colour is nearest.
"""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from imago.data.dataset import ImageDataset
from imago.data.transforms import RGB, Preprocessing
from imago.serving.package import GoldenSample, ModelPackage, ModelSpec

CLASSES = ("blue", "green", "red")
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (16, 16, 16),
    "blue": (40, 60, 210),
    "green": (40, 190, 60),
    "red": (210, 50, 40),
    "white": (235, 235, 235),
    "yellow": (220, 200, 40),
}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def colour_of(label: str) -> tuple[int, int, int]:
    """Return the colour of a class: the one it is named after, or one made of its name."""
    if label in COLOURS:
        return COLOURS[label]
    red, green, blue = np.random.default_rng(list(label.encode())).integers(30, 226, size=3)
    return int(red), int(green), int(blue)


def picture(label: str, *, seed: int = 0, size: tuple[int, int] = (48, 40), noise: float = 12.0) -> RGB:
    """Draw a picture of a class: its colour, with noise. `size` is (width, height)."""
    rng = np.random.default_rng([seed, *label.encode()])
    values = np.asarray(colour_of(label), dtype=np.float64) + rng.normal(0.0, noise, size=(size[1], size[0], 3))
    values += rng.normal(0.0, noise / 2, size=3)
    return values.clip(0, 255).round().astype(np.uint8)


def picture_bytes(label: str, *, seed: int = 0, size: tuple[int, int] = (48, 40), kind: str = "PNG") -> bytes:
    """Return the file of a picture of a class."""
    sink = io.BytesIO()
    Image.fromarray(picture(label, seed=seed, size=size)).save(sink, format=kind)
    return sink.getvalue()


def colour_dataset(
    *, classes: Sequence[str] = CLASSES, train: int = 4, val: int = 3, test: int = 6, mislabelled: int = 0
) -> ImageDataset:
    """Make a dataset that `make_package`'s model answers right, but for `mislabelled` pictures of the test split."""
    rows: list[tuple[str, bytes, str, str]] = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for position, label in enumerate(classes):
            for index in range(count):
                seed = {"train": 1000, "val": 2000, "test": 3000}[split] + index
                wrong = split == "test" and position * count + index < mislabelled
                shown = classes[(position + 1) % len(classes)] if wrong else label
                rows.append((f"{split}/{label}/{index:03d}.png", picture_bytes(shown, seed=seed), label, split))
    ids, images, labels, splits = zip(*rows, strict=True)
    return ImageDataset.from_rows(ids, images, labels, splits, origin="colours made by the tests")


def make_package(
    path: Path,
    classes: Sequence[str] = CLASSES,
    *,
    name: str = "moths",
    image_size: int = 32,
    temperature: float = 1.0,
    reject_threshold: float = 0.0,
    sharpness: float = 0.6,
    confused: bool = False,
    scaled_decoding: bool = False,
    seed: int = 0,
    maps: bool = False,
    maps_lean: bool = False,
) -> ModelPackage:
    """Write a whole package at `path` (made by this call) and return it.

    `sharpness` scales the logits; `confused` makes a model that takes each class for the next one; with `maps` the
    graph gives its last maps, the colours of the picture itself, and the head lies beside it.
    """
    path.mkdir(parents=True)
    (path / "golden").mkdir()
    preprocessing = Preprocessing(image_size=image_size, mean=MEAN, std=STD, scaled_decoding=scaled_decoding)
    centres = (np.array([colour_of(label) for label in classes]) / 255.0 - MEAN) / STD
    if confused:
        centres = np.roll(centres, 1, axis=0)
    weight = (sharpness * centres).astype(np.float32)
    bias = (-0.5 * sharpness * (centres**2).sum(axis=1)).astype(np.float32)
    save_file({"weight": weight, "bias": bias}, path / "weights.safetensors")
    onnx.save(_graph(weight, bias, image_size, maps=maps), path / "model.onnx")
    if maps:
        onnx.save(_head(weight, bias), path / "head.onnx")
    spec = ModelSpec(
        name=name,
        architecture="mean_colour",
        weights="none",
        classes=tuple(classes),
        preprocessing=preprocessing,
        temperature=temperature,
        reject_threshold=reject_threshold,
        dataset_fingerprint="0123456789abcdef",
        seed=seed,
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat(),
        versions={"onnxruntime": onnxruntime.__version__},
        maps_lean=maps_lean,
        metrics={"val_accuracy": 1.0},
    )
    (path / "spec.json").write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    card = f"# {name}\n\nA model of mean colours, made for tests.\n\n- classes: {', '.join(classes)}\n"
    (path / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    golden: list[GoldenSample] = []
    rows: list[dict[str, object]] = []
    for index in range(max(8, 2 * len(classes))):
        label = classes[index % len(classes)]
        shown = picture(label, seed=index)
        answer, probability, embedding = _answer(shown, weight, bias, spec)
        if len(golden) < 8:
            file = f"{index:02d}.png"
            Image.fromarray(shown).save(path / "golden" / file)
            golden.append(GoldenSample(file=file, label=answer, probability=probability))
        rows.append(_reference_row(shown, index, spec, answer, probability, embedding))
    listing = json.dumps([sample.model_dump() for sample in golden], indent=2)
    (path / "golden" / "golden.json").write_text(listing, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows, schema=REFERENCE), path / "reference.parquet")
    return ModelPackage(path)


REFERENCE = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("time", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("rejected", pa.bool_()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("sharpness", pa.float64()),
        ("red", pa.float64()),
        ("green", pa.float64()),
        ("blue", pa.float64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("embedding", pa.list_(pa.float32())),
        ("feedback", pa.string()),
    ]
)


def _graph(weight: np.ndarray, bias: np.ndarray, image_size: int, *, maps: bool) -> onnx.ModelProto:
    size = ["batch", 3, image_size, image_size]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image", "axes"], ["embedding"], keepdims=0),
            helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"], transB=1),
            *([helper.make_node("Reshape", ["image", "places"], ["maps"])] if maps else []),
        ],
        "mean_colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, size)],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(bias)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]),
            *([helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", 3, image_size**2])] if maps else []),
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "axes"),
            numpy_helper.from_array(np.array([0, 3, -1], dtype=np.int64), "places"),
        ],
    )
    return _checked(graph)


def _head(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"], transB=1)],
        "head",
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(bias)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return _checked(graph)


def _checked(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _answer(shown: RGB, weight: np.ndarray, bias: np.ndarray, spec: ModelSpec) -> tuple[str, float, list[float]]:
    from imago.data.transforms import preprocess

    embedding = preprocess(shown, spec.preprocessing).mean(axis=(1, 2))
    logits = (weight @ embedding + bias) / spec.temperature
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = int(probabilities.argmax())
    return spec.classes[best], float(probabilities[best]), [float(value) for value in embedding]


def _reference_row(
    shown: RGB, index: int, spec: ModelSpec, answer: str, probability: float, embedding: list[float]
) -> dict[str, object]:
    values = shown.astype(np.float64) / 255.0
    grey = values @ (0.299, 0.587, 0.114)
    return {
        "prediction_id": f"reference-{index:04d}",
        "time": spec.created,
        "model": spec.name,
        "version": "reference",
        "label": answer,
        "probability": probability,
        "rejected": probability < spec.reject_threshold,
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "sharpness": float(np.abs(np.diff(grey, axis=1)).mean()),
        "red": float(values[..., 0].mean()),
        "green": float(values[..., 1].mean()),
        "blue": float(values[..., 2].mean()),
        "width": shown.shape[1],
        "height": shown.shape[0],
        "embedding": embedding,
        "feedback": None,
    }
