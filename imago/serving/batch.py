"""Predicts a whole folder of unlabelled pictures: one row a file, readable or not."""

import base64
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from imago.config import InferenceConfig
from imago.data.folders import walk
from imago.data.listing import EXTENSIONS, MAX_FILE_BYTES, is_picture, read_file, readable_name
from imago.data.transforms import UnreadablePicture, decode
from imago.errors import ConfigError, DataRefused
from imago.files import replacing
from imago.serving.package import ModelPackage
from imago.serving.runtime import Prediction, Runtime, Unreadable

THUMBNAIL = 144  # pixels
THUMBNAILS = 48
THUMBNAILS_A_CLASS = 8

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # from the folder's root
        pa.field("label", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("rejected", pa.bool_()),
        pa.field("reason", pa.string()),  # why it was rejected, or could not be read
    ]
)

Progress = Callable[[int, int], None]
"""Is told how many pictures are done, and of how many."""


@dataclass(frozen=True)
class Predictions:
    """One row a file; one that could not be read has a reason and no label. `thumbnails` are JPEGs by path."""

    table: pa.Table
    thumbnails: Mapping[str, bytes]
    model: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def failed(self) -> int:
        """The number of files that could not be read."""
        return int(self.table.column("label").null_count)

    @property
    def rejected(self) -> int:
        """The number of pictures of which the model was not sure enough."""
        return sum(1 for value in self.table.column("rejected").to_pylist() if value)

    def counts(self) -> dict[str, int]:
        """Return the number of pictures by label, the most frequent first."""
        labels = (label for label in self.table.column("label").to_pylist() if label is not None)
        return dict(sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0])))

    def write(self, path: Path) -> None:
        """Write the table as Parquet, whole or not at all."""
        with replacing(path) as partial:
            pq.write_table(self.table, partial)

    @property
    def page(self) -> str:
        """A self-contained HTML page: the counts, a sample with pictures, and what could not be read."""
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
        rows = {row["path"]: row for row in self.table.to_pylist()}
        return template.render(
            predictions=self,
            counts=self.counts(),
            sample=[
                (rows[path], f"data:image/jpeg;base64,{base64.b64encode(data).decode()}")
                for path, data in self.thumbnails.items()
            ],
            unreadable=[row for row in rows.values() if row["label"] is None],
        )


def predict_folder(
    package: ModelPackage, folder: Path | str, config: InferenceConfig, on_progress: Progress | None = None
) -> Predictions:
    """Predict every picture below a folder, in the order of their paths.

    What is hidden, is not named as a picture, or leaves the folder by a link is passed over. Raises ConfigError
    where there is no such folder, DataRefused where there is no picture in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder of pictures: give the path of one with --data.")
    files = [file for file in walk(root).files if is_picture(file.name)]
    if not files:
        raise DataRefused(f"There is no picture below {root}: one's name ends in {', '.join(sorted(EXTENSIONS))}.")
    items = ((readable_name(file.name), read_file(file.path)) for file in files)
    return predict_pictures(package, items, config, total=len(files), on_progress=on_progress)


def predict_pictures(
    package: ModelPackage,
    pictures: Iterable[tuple[str, bytes]],
    config: InferenceConfig,
    *,
    total: int,
    on_progress: Progress | None = None,
) -> Predictions:
    """Predict named, encoded pictures; only a batch of them is in memory at a time."""
    runtime = Runtime(package, threads=os.cpu_count() or 1)
    sample = _Sample(total)
    rows: list[dict[str, object]] = []
    waiting = iter(pictures)
    while batch := list(islice(waiting, config.batch_size)):
        answers = runtime.predict([data for _, data in batch], top_k=1)
        for (path, data), answer in zip(batch, answers, strict=True):
            rows.append(_row(path, data, answer))
            if isinstance(answer, Prediction):
                sample.offer(path, answer.label, data)
        if on_progress is not None:
            on_progress(len(rows), total)
    return Predictions(pa.Table.from_pylist(rows, schema=SCHEMA), sample.thumbnails, package.spec.name)


def _row(path: str, data: bytes, answer: Prediction | Unreadable) -> dict[str, object]:
    if isinstance(answer, Unreadable):
        empty = f"it is empty, not to be read, or larger than {MAX_FILE_BYTES:,} bytes"
        return {"path": path, "reason": answer.message if data else empty}
    return {
        "path": path,
        "label": answer.label,
        "probability": answer.probability,
        "rejected": answer.rejected,
        "reason": answer.reason,
    }


class _Sample:
    """Thumbnails of some pictures: spread over the folder, and over the labels."""

    def __init__(self, total: int) -> None:
        self.thumbnails: dict[str, bytes] = {}
        self._every = max(1, total // (2 * THUMBNAILS))
        self._seen = 0
        self._labels: Counter[str] = Counter()

    def offer(self, path: str, label: str, data: bytes) -> None:
        self._seen += 1
        due = (self._seen - 1) % self._every == 0 or self._labels[label] == 0
        if not due or len(self.thumbnails) >= THUMBNAILS or self._labels[label] >= THUMBNAILS_A_CLASS:
            return
        try:
            picture = Image.fromarray(decode(data))
        except UnreadablePicture:  # predicted a moment ago: only a lower limit of pixels could tell
            return
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        sink = io.BytesIO()
        picture.save(sink, format="JPEG", quality=80)
        self.thumbnails[path] = sink.getvalue()
        self._labels[label] += 1
