"""Runs a model package's graph with ONNX Runtime: the same answer offline and at the endpoint. No torch in here."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from imago.data import transforms
from imago.data.features import picture_features
from imago.data.transforms import MAX_PIXELS, RGB, Decoded, UnreadablePicture
from imago.errors import ImagoError, first_line
from imago.serving.package import ModelPackage

BATCH = 8  # a CPU is no faster with more, and they take a gigabyte

Floats = npt.NDArray[np.float32]

Observe = Callable[[int, float, float], None]
"""Is told how many pictures went through the graph at once, and the seconds of their decoding and of the graph."""

_state = ort.capi.onnxruntime_pybind11_state
_LOAD_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
)


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture, and what is remembered of the picture for monitoring."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]  # labels with probabilities, the likeliest first
    rejected: bool
    reason: str | None
    embedding: Floats  # (D,)
    features: dict[str, float]  # of what the network was shown
    width: int
    height: int


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be predicted."""

    code: Literal["not_a_picture", "too_many_pixels", "undecodable"]
    message: str


@dataclass(frozen=True)
class _Prepared:
    tensor: Floats  # (3, size, size)
    features: dict[str, float]
    width: int
    height: int


class Runtime:
    """A model package ready to predict; safe to use from several threads."""

    def __init__(self, package: ModelPackage, *, threads: int = 1) -> None:
        self.package = package
        self.spec = package.spec
        self.threads = threads
        self.has_maps = package.head.is_file()  # packages were made without
        self.maps_lean = self.spec.maps_lean
        self._session = self._open(package.onnx, "logits", "embedding", *(["maps"] if self.has_maps else []))
        self._head = self._open(package.head, "logits") if self.has_maps else None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.spec.classes

    def preprocess(self, image: bytes, *, max_pixels: int = MAX_PIXELS) -> Floats:
        """Turn an encoded picture into the model's input: (3, size, size) float32. Raises UnreadablePicture."""
        return transforms.preprocess(self._decode(image, max_pixels).pixels, self.spec.preprocessing)

    def predict_array(self, batch: Floats) -> tuple[Floats, Floats]:
        """Run preprocessed pictures (N, 3, size, size): calibrated probabilities (N, C) and embeddings (N, D)."""
        logits, embeddings = self._session.run(["logits", "embedding"], {"image": batch})
        scaled = logits.astype(np.float64) / self.spec.temperature
        exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities = exponent / exponent.sum(axis=1, keepdims=True)
        if not np.isfinite(probabilities).all():
            raise ImagoError(f"The graph {self.package.onnx} gave numbers that are not finite.")
        return probabilities.astype(np.float32), embeddings.astype(np.float32, copy=False)

    def maps(self, batch: Floats) -> Floats:
        """Run preprocessed pictures: the features (N, D, h·h) that the head takes the mean of, if it `has_maps`."""
        maps: Floats = self._session.run(["maps"], {"image": batch})[0]
        return maps

    def head(self, means: Floats) -> Floats:
        """Return the logits (N, C), before the temperature, for means (N, D) of the maps, if it `has_maps`."""
        if self._head is None:
            raise ImagoError(f"The package {self.package.path} has no head.onnx.")
        logits: Floats = self._head.run(["logits"], {"mean": means})[0]
        return logits

    def probabilities(self, images: Sequence[bytes], *, max_pixels: int = MAX_PIXELS) -> Floats:
        """Predict encoded pictures: (N, C) float32. Raises UnreadablePicture at the first that cannot be read."""
        parts = [np.zeros((0, len(self.classes)), dtype=np.float32)]
        for start in range(0, len(images), BATCH):
            batch = [self.preprocess(image, max_pixels=max_pixels) for image in images[start : start + BATCH]]
            parts.append(self.predict_array(np.stack(batch))[0])
        return np.concatenate(parts)

    def predict(
        self,
        images: Sequence[bytes],
        *,
        top_k: int = 5,
        max_pixels: int = MAX_PIXELS,
        observe: Observe | None = None,
    ) -> list[Prediction | Unreadable]:
        """Predict encoded pictures, in their order; what cannot be read is answered with the reason."""
        answers: list[Prediction | Unreadable] = []
        for start in range(0, len(images), BATCH):
            answers.extend(self._predict_batch(images[start : start + BATCH], top_k, max_pixels, observe))
        return answers

    def predict_picture(self, picture: RGB, *, top_k: int = 5) -> Prediction:
        """Predict one decoded picture: (height, width, 3) uint8."""
        prepared = self._prepare_picture(picture, (picture.shape[0], picture.shape[1]))
        probabilities, embeddings = self.predict_array(prepared.tensor[None])
        return self._answer(prepared, probabilities[0], embeddings[0], top_k)

    def _open(self, path: Path, *wanted: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _LOAD_ERRORS as error:
            raise ImagoError(f"The graph {path} cannot be loaded: {first_line(error)}") from error
        outputs = {output.name: output.shape for output in session.get_outputs()}
        if not set(wanted) <= outputs.keys():
            names = " and ".join(f"`{name}`" for name in wanted)
            raise ImagoError(f"The graph {path} gives {sorted(outputs)}, not {names}.")
        if outputs["logits"][-1] != len(self.classes):
            raise ImagoError(
                f"The graph {path} tells {outputs['logits'][-1]} classes apart, its spec {len(self.classes)}."
            )
        return session

    def _predict_batch(
        self, images: Sequence[bytes], top_k: int, max_pixels: int, observe: Observe | None
    ) -> list[Prediction | Unreadable]:
        begun = time.perf_counter()
        prepared = self._prepare_all(images, max_pixels)
        readable = [item for item in prepared if isinstance(item, _Prepared)]
        answers: list[Prediction | Unreadable] = []
        if readable:
            tensors = [item.tensor for item in readable]
            batch = np.stack(tensors) if len(tensors) > 1 else tensors[0][None]  # one is not copied
            decoded = time.perf_counter()
            probabilities, embeddings = self.predict_array(batch)
            if observe is not None:
                observe(len(readable), decoded - begun, time.perf_counter() - decoded)
            rows = iter(zip(probabilities, embeddings, strict=True))
        for item in prepared:
            answers.append(item if isinstance(item, Unreadable) else self._answer(item, *next(rows), top_k))
        return answers

    def _prepare_all(self, images: Sequence[bytes], max_pixels: int) -> list[_Prepared | Unreadable]:
        if self.threads == 1 or len(images) == 1:
            return [self._prepare(image, max_pixels) for image in images]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda image: self._prepare(image, max_pixels), images))

    def _prepare(self, image: bytes, max_pixels: int) -> _Prepared | Unreadable:
        try:
            decoded = self._decode(image, max_pixels)
        except UnreadablePicture as error:
            return Unreadable(error.code, str(error))
        return self._prepare_picture(decoded.pixels, decoded.shape)

    def _decode(self, image: bytes, max_pixels: int) -> Decoded:
        return transforms.read_picture(image, max_pixels=max_pixels, side=self.spec.preprocessing.side)

    def _prepare_picture(self, picture: RGB, shape: tuple[int, int]) -> _Prepared:
        height, width = shape
        square = transforms.resize_to_square(picture, self.spec.preprocessing.image_size)
        tensor = transforms.normalise(square, self.spec.preprocessing)
        return _Prepared(tensor, picture_features(square), width, height)

    def _answer(self, prepared: _Prepared, probabilities: Floats, embedding: Floats, top_k: int) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((self.classes[index], float(probabilities[index])) for index in order)
        label, probability = top[0]
        threshold = self.spec.reject_threshold
        rejected = probability < threshold
        reason = f"the model is only {probability:.0%} sure; it answers from {threshold:.0%} on" if rejected else None
        return Prediction(
            label=label,
            probability=probability,
            top=top,
            rejected=rejected,
            reason=reason,
            embedding=embedding,
            features=prepared.features,
            width=prepared.width,
            height=prepared.height,
        )
