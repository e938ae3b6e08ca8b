"""What an endpoint answers, as its clients read it. A key that a later endpoint adds is passed over."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TESTED = "imago.tested"  # the label by which a Bento says it, as JSON


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Model(_Answer):
    """Which model answered."""

    name: str
    version: str


class LabelProbability(_Answer):
    """A label, and how likely the model thinks it."""

    label: str
    probability: float  # in [0, 1], calibrated


class Prediction(_Answer):
    """What the model says of one picture."""

    prediction_id: str  # what feedback names
    model: Model
    predictions: tuple[LabelProbability, ...] = Field(min_length=1)  # the likeliest first
    rejected: bool  # whether the model is too unsure to be believed
    reason: str | None

    @property
    def label(self) -> str:
        """The likeliest label."""
        return self.predictions[0].label

    @property
    def probability(self) -> float:
        """How likely the likeliest label is."""
        return self.predictions[0].probability


class Refused(_Answer):
    """Why a request, or one picture of a batch, was not answered."""

    code: str
    message: str
    request_id: str | None = None


class Error(_Answer):
    """What stands in the place of an answer."""

    error: Refused


class Limits(_Answer):
    """What the endpoint takes."""

    upload_bytes: int  # of a picture
    pixels: int  # of a picture
    batch_pictures: int
    batch_bytes: int  # of all pictures of a batch
    formats: tuple[str, ...]


class Tested(_Answer):
    """How a model did on test pictures; `low` and `high` are the 95% interval of its accuracy."""

    accuracy: float
    low: float
    high: float
    pictures: int


class Info(_Answer):
    """What the endpoint tells of its model and its limits."""

    model: Model
    architecture: str
    fingerprint: str
    created: str  # ISO 8601, UTC
    metrics: dict[str, float | None]  # of training; None: it is no number
    tested: Tested | None = None  # None where its Bento does not say
    classes: tuple[str, ...]
    image_size: int  # pixels
    reject_threshold: float
    top_k: int  # labels in an answer
    feedback: bool  # whether it is taken
    reports: bool = False  # whether `/reports` shows them
    heat_map: Literal["class_activation", "occlusion"] = "occlusion"  # how it is found
    limits: Limits


class Batch(_Answer):
    """The answers to the pictures of a batch, in their order."""

    model: Model
    results: tuple[Prediction | Error, ...]
