"""Pictures for the tests of the data room, and how they are encoded and laid out."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from imago.data.synthetic import draw_moth
from imago.data.transforms import RGB


def moth(species: int, number: int, size: int = 64) -> RGB:
    """Draw the same picture for the same species and number."""
    return draw_moth(species, np.random.default_rng([species, number]), size)


def encode(picture: RGB, kind: str = "JPEG", quality: int = 90) -> bytes:
    """Encode a picture as the bytes of a file."""
    buffer = io.BytesIO()
    options = {"quality": quality} if kind == "JPEG" else {}
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def write_classes(root: Path, counts: dict[str, int], *, size: int = 32) -> Path:
    """Write class folders: `root/label/0.jpg …`, so many of each; a label may hold slashes."""
    for species, (label, count) in enumerate(counts.items()):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / label / f"{number}.jpg").write_bytes(encode(moth(species % 12, number, size)))
    return root
