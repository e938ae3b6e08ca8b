"""What an evaluation found: every number, and every picture's answer."""

import hashlib

import pyarrow as pa
from pydantic import ConfigDict, Field, ValidationError

from imago.errors import ImagoError
from imago.evaluation.metrics import Finding, Metrics
from imago.evaluation.rejection import Rejection
from imago.evaluation.robustness import RobustnessResult
from imago.evaluation.slices import Slice
from imago.footprint import Spent
from imago.serving.package import Suspect

PREDICTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("predicted", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("rejected", pa.bool_(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("brightness", pa.float64(), nullable=False),
        pa.field("contrast", pa.float64(), nullable=False),
        pa.field("sharpness", pa.float64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)
"""One row a test picture; `probabilities` in the order of the metrics' classes."""


_CLOCKED = {"latency_ms", "latency_ms_p95", "memory_bytes", "spent"}
"""What differs from one evaluation of the same to the next."""


class Findings(Finding):
    """Every number of an evaluation, and what was evaluated.

    Those that have a default are missing from the reports of earlier versions.
    """

    model: str
    architecture: str
    package_fingerprint: str
    classes: tuple[str, ...]  # that the model knows
    unknown_classes: tuple[str, ...]  # that the test pictures show besides, always answered wrong
    dataset_fingerprint: str
    test_fingerprint: str
    validation: dict[str, float] = Field(default_factory=dict)  # what training found on the validation pictures
    temperature: float
    reject_threshold: float
    metrics: Metrics
    rejected: int  # pictures whose answer the model would withhold
    rejection: Rejection | None = None
    slices: tuple[Slice, ...]
    robustness: tuple[RobustnessResult, ...]
    latency_ms: float  # median of one picture, decoding included, on ONNX Runtime with one thread
    latency_ms_p95: float
    model_bytes: int  # of the ONNX graph with its weights
    parameters: int | None = None  # None where timm cannot build the architecture
    macs: int | None = None  # multiplications with addition, a picture
    memory_bytes: int | None = None  # by which a process grows that loads the graph and answers picture by picture
    suspects: tuple[Suspect, ...] | None = None  # training pictures whose label is probably wrong; None: not looked for
    weights: str = "not stated"  # that training began with
    weights_license: str = "not stated"
    spent: Spent | None = None  # by training

    def figures(self) -> dict[str, float]:
        """Return the numbers that a tracker logs, such as `test_accuracy`."""
        known: dict[str, float | None] = {
            "parameters": self.parameters,
            "macs": self.macs,
            "memory_bytes": self.memory_bytes,
        }
        if self.rejection is not None:
            known |= {
                "test_coverage": self.rejection.coverage,
                "test_error_of_answered": self.rejection.error,
                "test_aurc": self.rejection.aurc,
                "strangers_auroc": self.rejection.strangers.auroc if self.rejection.strangers else None,
            }
        return {
            "test_accuracy": self.metrics.accuracy,
            "test_accuracy_low": self.metrics.accuracy_interval.low,
            "test_accuracy_high": self.metrics.accuracy_interval.high,
            "test_top5": self.metrics.top5,
            "test_balanced_accuracy": self.metrics.balanced_accuracy,
            "test_macro_f1": self.metrics.macro_f1,
            "test_log_loss": self.metrics.log_loss,
            "test_expected_calibration_error": self.metrics.expected_calibration_error,
            "test_pictures": float(self.metrics.pictures),
            "latency_ms": self.latency_ms,
            "model_bytes": float(self.model_bytes),
            **{name: float(value) for name, value in known.items() if value is not None},
        }


class EvaluationReport(Findings):
    """How good a model is on a test split, how sure that is, and where it goes wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    predictions: pa.Table = Field(exclude=True, repr=False)
    html: str = Field(exclude=True, repr=False)

    def to_json(self) -> str:
        """Return the findings, without the predictions and the page."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, predictions: pa.Table, html: str) -> "EvaluationReport":
        """Put a report together again. Raises ImagoError where the text is not one."""
        try:
            findings = Findings.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "all of it"
            raise ImagoError(
                f"The evaluation report cannot be read ({where}: {first['msg']}): evaluate again."
            ) from error
        return cls(**dict(findings), predictions=predictions, html=html)

    @property
    def content_hash(self) -> str:
        """A digest of what was found, however long it took and whatever memory: 64 hexadecimal digits."""
        digest = hashlib.sha256(self.model_dump_json(exclude=_CLOCKED).encode())
        for name in ("sha256", "label", "predicted", "probability"):
            digest.update(repr(self.predictions.column(name).to_pylist()).encode())
        return digest.hexdigest()
