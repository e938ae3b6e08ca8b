"""Pictures that show none of a model's classes: what a person will show it all the same."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imago.data.dataset import SPLITS
from imago.data.sources import draw_pictures
from imago.data.synthetic import SPECIES, moth_file
from imago.errors import DataRefused, ImagoError

MOST = 200
"""Pictures that are looked at."""


@dataclass(frozen=True)
class Outside:
    """Files of pictures, and a phrase on which they are."""

    images: list[bytes]
    what: str
    are_easy: bool = False  # drawings, for a model that knows photographs alone


def outside_pictures(source: str | None, classes: Collection[str], *, image_size: int, seed: int) -> Outside:
    """Return at most 200 pictures of a source that have none of these classes, drawn by the seed.

    No source: drawn moths, of the species that are not among the classes; none where all are. Raises DataRefused where
    a source has no picture of another class, and what reading a source raises.
    """
    if source is None:
        return _drawn_moths(classes, image_size, seed)
    try:
        images = draw_pictures(source, MOST, seed, without=classes)
    except ImagoError as error:
        raise type(error)(f"evaluation.outside: {error}") from error
    if not images:
        raise DataRefused(f"evaluation.outside: {source} holds no picture of a class that the model does not know.")
    return Outside(images, f"pictures of {Path(source).name if Path(source).exists() else source}")


def _drawn_moths(classes: Collection[str], image_size: int, seed: int) -> Outside:
    strange = [index for index, name in enumerate(SPECIES) if name not in classes]
    if not strange:
        return Outside([], "")
    jobs = [(species, number) for number in range(MOST // len(strange)) for species in strange]

    def draw(job: tuple[int, int]) -> bytes:
        return moth_file(job[0], np.random.default_rng([seed, len(SPLITS), *job]), image_size)

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(draw, jobs))
    are_easy = not set(classes).intersection(SPECIES)
    return Outside(images, f"drawn moths of {len(strange)} made-up species", are_easy)
