"""Where things go wrong, as pictures: the worst mistakes, classes taken for one another, labels that look wrong."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from imago.data.dataset import ImageDataset
from imago.data.transforms import RGB, decode, preprocess
from imago.errors import ImagoError
from imago.evaluation.explain import Method, fit_within, occlusion_map, overlay, spread
from imago.evaluation.metrics import Metrics
from imago.serving.package import Suspect
from imago.serving.runtime import Floats, Runtime

_MISTAKES, _OCCLUDED = 24, 4
_CONFUSED_PAIRS = 4
_DOUBTFUL = 12
_THUMBNAIL = 176


@dataclass(frozen=True)
class Mistake:
    """A wrong answer with its picture, and where the model looked."""

    id: str
    label: str
    predicted: str
    probability: float
    thumbnail: str  # data URI
    heat: str | None  # data URI


@dataclass(frozen=True)
class DoubtfulLabel:
    """A training picture that probably bears a wrong label."""

    suspect: Suspect
    thumbnail: str  # data URI


@dataclass(frozen=True)
class Gallery:
    """The worst mistakes, and how it was found where the model looked."""

    mistakes: list[Mistake]
    method: Method
    reason: str  # why it is not class activation


@dataclass(frozen=True)
class ConfusedPair:
    """A class that is taken for another, with a picture that was, and one that really shows the other."""

    shown: str
    answered: str
    times: int
    confused: str  # data URI
    genuine: str | None  # data URI; None where no test picture shows the class that was answered


def worst_mistakes(predictions: pa.Table, test: ImageDataset, runtime: Runtime) -> Gallery:
    """Return the wrong answers that the model was surest of, with maps of where it looked.

    Maps of class activation are cheap, so that every mistake has one; where the architecture gives none, the first few
    have an occlusion map instead.
    """
    rows = [row for row in _surest(predictions) if not row["correct"]][:_MISTAKES]
    pictures, pixels = [], []
    for row in rows:
        picture = decode(test.image(row["index"]), side=runtime.spec.preprocessing.side)
        pixels.append(preprocess(picture, runtime.spec.preprocessing))
        pictures.append(fit_within(picture, 4 * _THUMBNAIL))
    reason = ""
    try:
        maps = _class_activations(runtime, pixels, [row["predicted"] for row in rows]) if rows else []
        heats = [spread(heat, *picture.shape[:2]) for heat, picture in zip(maps, pictures, strict=True)]
    except ImagoError as error:
        reason = str(error)
        heats = [occlusion_map(runtime, picture) for picture in pictures[:_OCCLUDED]]
    shown = [_data_uri(decode(overlay(picture, heat))) for picture, heat in zip(pictures, heats, strict=False)]
    mistakes = [
        Mistake(
            id=row["id"],
            label=row["label"],
            predicted=row["predicted"],
            probability=row["probability"],
            thumbnail=_data_uri(picture),
            heat=shown[rank] if rank < len(shown) else None,
        )
        for rank, (row, picture) in enumerate(zip(rows, pictures, strict=True))
    ]
    return Gallery(mistakes, "occlusion" if reason else "class_activation", reason)


def confused_pairs(metrics: Metrics, predictions: pa.Table, test: ImageDataset) -> list[ConfusedPair]:
    """Return the commonest confusions with pictures: the surest mistake, and a test picture of what was answered.

    That is the one which the model names right and is surest of, if there is one.
    """
    rows = _surest(predictions)

    def picture(index: int) -> str:
        return _data_uri(decode(test.image(index)))

    pairs = []
    for shown, answered, times in metrics.confusions(_CONFUSED_PAIRS):
        confused = next(row for row in rows if (row["label"], row["predicted"]) == (shown, answered))
        genuine = [row for row in rows if row["label"] == answered]
        genuine.sort(key=lambda row: not row["correct"])
        beside = picture(genuine[0]["index"]) if genuine else None
        pairs.append(ConfusedPair(shown, answered, times, picture(confused["index"]), beside))
    return pairs


def doubtful_labels(suspects: Sequence[Suspect], train: ImageDataset) -> list[DoubtfulLabel]:
    """Return the first of the suspects that are among these training pictures, with their pictures."""
    index = {key: row for row, key in enumerate(zip(train.ids, train.labels, strict=True))}
    here = [one for one in suspects if (one.id, one.label) in index][:_DOUBTFUL]
    return [DoubtfulLabel(one, _data_uri(decode(train.image(index[one.id, one.label])))) for one in here]


def _surest(predictions: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = predictions.select(["id", "label", "predicted", "probability", "correct"]).to_pylist()
    for index, row in enumerate(rows):
        row["index"] = index
    return sorted(rows, key=lambda row: (-row["probability"], row["id"]))


def _class_activations(runtime: Runtime, pixels: list[Floats], answers: list[str]) -> list[Floats]:
    from imago.evaluation.class_activation import class_activation_maps  # torch takes seconds to import
    from imago.serving.export import load_module

    module = load_module(runtime.package).requires_grad_(False)
    classes = np.array([runtime.classes.index(answer) for answer in answers], dtype=np.int64)
    return list(class_activation_maps(module, np.stack(pixels), classes))


def _data_uri(picture: RGB) -> str:
    sink = io.BytesIO()
    Image.fromarray(fit_within(picture, _THUMBNAIL)).save(sink, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
