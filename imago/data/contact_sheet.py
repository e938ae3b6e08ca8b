"""A data set at a glance: some pictures of each class, and how many there are in each split."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image

from imago.data.dataset import SPLITS, ImageDataset
from imago.data.transforms import MAX_PIXELS, UnreadablePicture, decode

PER_CLASS, IN_ALL = 8, 240


@dataclass(frozen=True)
class ClassRow:
    """A class, some of its training pictures, and how many it has in each split."""

    label: str
    thumbnails: list[str]  # data URIs
    counts: list[int]


def render_contact_sheet(dataset: ImageDataset) -> str:
    """Return a self-contained page that shows what is in a data set, quarantined or not."""
    return load_template(Path(__file__).with_suffix(".html")).render(
        dataset=dataset,
        splits={split: dataset.splits.count(split) for split in SPLITS},
        classes=class_rows(dataset, per_class=PER_CLASS),
    )


def class_rows(dataset: ImageDataset, *, per_class: int, max_pixels: int = MAX_PIXELS) -> list[ClassRow]:
    """Return each class with up to `per_class` training pictures, fewer where there are many classes."""
    counts = dataset.counts()
    wanted = max(1, min(per_class, IN_ALL // max(1, len(counts))))
    thumbnails: dict[str, list[str]] = {label: [] for label in counts}
    for index, (label, split) in enumerate(zip(dataset.labels, dataset.splits, strict=True)):
        if split == "train" and len(thumbnails[label]) < wanted:
            try:
                thumbnails[label].append(thumbnail(dataset.image(index), 96, max_pixels=max_pixels))
            except UnreadablePicture:
                continue
    return [ClassRow(label, thumbnails[label], [counts[label][split] for split in SPLITS]) for label in counts]


def thumbnail(data: bytes, side: int = 176, *, max_pixels: int = MAX_PIXELS) -> str:
    """Return a picture as a small JPEG in a data URI. Raises UnreadablePicture."""
    image = Image.fromarray(decode(data, max_pixels=max_pixels))
    image.thumbnail((side, side))
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"


def load_template(path: Path) -> jinja2.Template:
    """Return a page's template, which escapes what it is given."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(readable=_readable, sentence=_sentence)
    return environment.from_string(path.read_text(encoding="utf-8"))


def _readable(label: str) -> str:
    return label.replace("_", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
