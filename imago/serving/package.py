"""A trained model as a folder without a pickle: what is evaluated, registered, served and rolled back to.

`weights.safetensors model.onnx spec.json reference.parquet golden/ MODEL_CARD.md`, `head.onnx` where the graph gives
maps, and `suspects.json` where they were looked for. No torch in here.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from imago.data.transforms import Preprocessing
from imago.errors import ImagoError
from imago.footprint import Spent
from imago.history import EpochResult

FILES = ("weights.safetensors", "model.onnx", "spec.json", "reference.parquet", "golden/golden.json", "MODEL_CARD.md")

Setting = bool | int | float | str


class ModelSpec(BaseModel):
    """What must be known of a model besides its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    architecture: str
    weights: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float = 1.0
    reject_threshold: float = 0.0
    dataset_fingerprint: str
    seed: int
    created: str  # ISO 8601, UTC
    versions: dict[str, str]
    metrics: dict[str, float] = {}
    maps_lean: bool = False  # the graph's maps, if it gives any, to one side, as strided convolutions make them
    weights_license: str = "not stated"  # of the weights that training began with
    spent: Spent | None = None  # by training
    recipe: dict[str, Setting] = {}  # of training, with nothing left open; what is off is left out
    history: tuple[EpochResult, ...] = ()  # of training, epoch by epoch


class GoldenSample(BaseModel):
    """A picture of the test split, or validation, and the answer that every deployment of the model must give."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str  # in golden/
    label: str  # what the model says, not what the picture shows
    probability: float


class Suspect(BaseModel):
    """A training picture that probably bears a wrong label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    likelier: str  # what it looks like instead
    probability: float  # of its label, by a classifier that did not learn from it


@dataclass(frozen=True)
class ModelPackage:
    """A model's folder. It is written once, whole, and only read from then on."""

    path: Path

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's spec. Raises ImagoError where the folder is not a whole package."""
        missing = [name for name in FILES if not (self.path / name).is_file()]
        if missing:
            raise ImagoError(f"{self.path} is not a model package: it lacks {', '.join(missing)}.")
        try:
            return ModelSpec.model_validate_json((self.path / "spec.json").read_bytes())
        except ValidationError as error:
            raise ImagoError(f"The spec of {self.path} cannot be read: {error.errors()[0]['msg']}.") from error

    @property
    def onnx(self) -> Path:
        """The graph: `image` (N, 3, H, W) float32 → `logits` (N, classes) float32, `embedding` (N, D) float32.

        Where `head` is there, it also gives `maps` (N, D', h·h) float32, row by row.
        """
        return self.path / "model.onnx"

    @property
    def head(self) -> Path:
        """The graph of the head: the mean of the maps (N, D') float32 → `logits`; not of every architecture."""
        return self.path / "head.onnx"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def reference(self) -> Path:
        """Parquet, one row a validation picture, with the columns that the prediction store keeps of a request."""
        return self.path / "reference.parquet"

    @cached_property
    def golden(self) -> tuple[GoldenSample, ...]:
        rows: list[dict[str, Any]] = json.loads((self.path / "golden" / "golden.json").read_text(encoding="utf-8"))
        return tuple(GoldenSample.model_validate(row) for row in rows)

    @cached_property
    def suspects(self) -> tuple[Suspect, ...] | None:
        """The training pictures that probably bear a wrong label; None where they were not looked for."""
        file = self.path / "suspects.json"
        if not file.is_file():
            return None
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return tuple(Suspect.model_validate(row) for row in rows)

    @property
    def card(self) -> str:
        return (self.path / "MODEL_CARD.md").read_text(encoding="utf-8")

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the graph and the spec: 16 hexadecimal digits."""
        digest = hashlib.sha256(self.onnx.read_bytes())
        digest.update((self.path / "spec.json").read_bytes())
        return digest.hexdigest()[:16]
