"""Moths drawn from a seed: a data set that needs no download, neither trivial nor hard.

Species share colours and backgrounds, so that colour alone does not tell them apart; what does is the wings' shape and
the pattern upon them, and both vary between the animals of a species.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from imago.config import SyntheticConfig
from imago.data.dataset import SPLITS, ImageDataset
from imago.data.transforms import RGB
from imago.errors import ImagoError

Plane = npt.NDArray[np.floating]
"""A value for each pixel: (size, size) float32."""
Colour = npt.NDArray[np.floating]
"""(3,) float32 in [0, 1]."""
Pattern = Literal["bands", "eyespots", "spots", "border", "rays"]


@dataclass(frozen=True)
class _Species:
    name: str
    ground: str
    mark: str
    pattern: Pattern
    marks: float  # how many bands, spots or rays
    length: float  # of the forewing, in units of half a picture
    width: float
    tail: float = 0.0


_GROUNDS = {
    "ochre": (0.70, 0.50, 0.24),
    "ash": (0.56, 0.55, 0.56),
    "cream": (0.84, 0.82, 0.60),
    "rust": (0.62, 0.28, 0.18),
}
_MARKS = {"umber": (0.22, 0.13, 0.08), "chalk": (0.94, 0.92, 0.84), "slate": (0.18, 0.24, 0.44)}

_KINDS = (
    _Species("velora_fasciata", "ochre", "umber", "bands", 3.0, 0.60, 0.34),
    _Species("noctessa_ocellata", "ochre", "slate", "eyespots", 1.0, 0.60, 0.34),
    _Species("umbrella_striata", "ash", "umber", "bands", 4.0, 0.70, 0.22),
    _Species("cinerola_radiata", "ash", "chalk", "rays", 9.0, 0.58, 0.36),
    _Species("lunessa_caudata", "cream", "slate", "eyespots", 1.0, 0.62, 0.28, tail=0.45),
    _Species("pallidia_punctata", "cream", "umber", "spots", 9.0, 0.58, 0.36),
    _Species("ferrugia_limbata", "rust", "umber", "border", 1.0, 0.60, 0.36),
    _Species("rubessa_guttata", "rust", "chalk", "spots", 8.0, 0.70, 0.24),
    _Species("aurivela_marginata", "ochre", "chalk", "border", 1.0, 0.56, 0.38),
    _Species("brumalia_maculata", "ash", "slate", "spots", 7.0, 0.64, 0.28, tail=0.30),
    _Species("virescella_venosa", "cream", "umber", "rays", 13.0, 0.70, 0.24),
    _Species("ignessa_zonata", "rust", "chalk", "bands", 3.0, 0.54, 0.38, tail=0.35),
)

SPECIES: tuple[str, ...] = tuple(kind.name for kind in _KINDS)
"""Invented names of the species, in the order in which a smaller number of them is taken."""


def draw_moth(species: int, rng: np.random.Generator, size: int) -> RGB:
    """Draw one animal of a species on a random background: (size, size, 3) uint8."""
    kind = _KINDS[species]
    x, y = _animal_coordinates(rng, size)
    ground, mark = _individual_colours(kind, rng)
    canvas = _background(rng, size)

    length = kind.length * _vary(rng, 0.07)
    width = kind.width * _vary(rng, 0.10)
    fore = _Wing.spread(x, y, angle=rng.uniform(-0.55, -0.25), length=length, width=width)
    hind = _Wing.spread(
        x, y, angle=rng.uniform(0.55, 0.85), length=length * rng.uniform(0.72, 0.84), width=width * 1.05
    )
    edge = size * 0.5
    if kind.tail:
        tail = _ellipse(x - 0.26, y - 0.40 - kind.tail / 2, 0.055, 0.08 + kind.tail / 2)
        _paint(canvas, ground * 0.92, _soft(1 - tail, edge * 0.06))
    for wing, fade in ((hind, 0.85), (fore, 1.0)):
        shade = (1.05 - 0.25 * np.clip(wing.across, 0, 1))[..., None]
        _paint(canvas, ground * fade * shade, wing.mask(edge))
        _paint(canvas, mark, _marks(kind, wing, rng) * wing.mask(edge) * (fade * rng.uniform(0.7, 1.0)))
    _paint(canvas, ground * 0.42, _soft(1 - _ellipse(x, y - 0.03, 0.075, 0.34), edge * 0.07))
    antenna = 0.012 - np.abs(x - 0.03 - 0.45 * np.clip(-0.28 - y, 0, 0.32))
    _paint(canvas, mark * 0.8, _soft(antenna, edge) * ((y < -0.26) & (y > -0.60)))
    return _photograph(canvas, rng)


def moth_file(species: int, rng: np.random.Generator, size: int) -> bytes:
    """Draw one animal of a species as a JPEG file."""
    return _encode(draw_moth(species, rng, size), quality=int(rng.integers(82, 96)))


def synthetic_dataset(config: SyntheticConfig, image_size: int, seed: int) -> ImageDataset:
    """Draw a data set: JPEG files with ids such as `train/velora_fasciata/0001.jpg`, the same for the same seed.

    Each picture has its own random stream: raising a count adds pictures and changes none.
    """
    counts = dict(zip(SPLITS, (config.per_class_train, config.per_class_val, config.per_class_test), strict=True))
    jobs = [
        (split, species, number)
        for split, count in counts.items()
        for species in range(config.species)
        for number in range(1, count + 1)
    ]

    def draw(job: tuple[str, int, int]) -> bytes:
        split, species, number = job
        return moth_file(species, np.random.default_rng([seed, SPLITS.index(split), species, number]), image_size)

    with ThreadPoolExecutor() as pool:
        images = list(pool.map(draw, jobs))
    return ImageDataset.from_rows(
        [f"{split}/{SPECIES[species]}/{number:04d}.jpg" for split, species, number in jobs],
        images,
        [SPECIES[species] for _, species, _ in jobs],
        [split for split, _, _ in jobs],
        origin=f"No source was given: {len(jobs)} synthetic moths of {config.species} species, drawn from seed {seed}.",
    )


def write_folder(dataset: ImageDataset, root: Path) -> None:
    """Write the pictures as files under a folder, each at `split/label/` and the last part of its id.

    Raises ImagoError where two pictures would share a file, or a label cannot be a folder's name.
    """
    written: set[Path] = set()
    for index, (identity, label, split) in enumerate(zip(dataset.ids, dataset.labels, dataset.splits, strict=True)):
        if label in {"", ".", ".."} or "/" in label or "\\" in label:
            raise ImagoError(f"The class {label!r} cannot be the name of a folder under {root}: rename it.")
        path = root / split / label / PurePosixPath(identity).name
        if path in written:
            raise ImagoError(f"Two pictures of {label!r} in {split} are both called {path.name}: rename one of them.")
        written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.image(index))


@dataclass(frozen=True)
class _Wing:
    """A wing as coordinates: `along` is 0 at the body and 1 at the tip, `across` within ±1 between the edges."""

    along: Plane
    across: Plane

    @classmethod
    def spread(cls, x: Plane, y: Plane, *, angle: float, length: float, width: float) -> "_Wing":
        cos, sin = math.cos(angle), math.sin(angle)
        along = (x * cos + y * sin) / length
        across = (y * cos - x * sin) / width
        return cls(along, across / (0.35 + 0.65 * np.clip(along, 0, 1)))

    @property
    def radius(self) -> Plane:
        """0 in the middle of the wing, 1 on its edge."""
        from_middle = np.abs(2 * self.along - 1)
        return from_middle * from_middle * from_middle + self.across * self.across

    def mask(self, edge: float) -> Plane:
        return _soft(1 - self.radius, edge * 0.12)


def _marks(kind: _Species, wing: _Wing, rng: np.random.Generator) -> Plane:
    if kind.pattern == "bands":
        waves = wing.along * kind.marks * _vary(rng, 0.06) + 0.05 * np.sin(wing.across * rng.uniform(3, 6)) * kind.marks
        return _soft(np.sin(2 * math.pi * waves + rng.uniform(-0.6, 0.6)) - 0.25, 5)
    if kind.pattern == "rays":
        return _soft(np.sin(wing.across * kind.marks * _vary(rng, 0.08) + rng.uniform(-0.8, 0.8)) - 0.35, 5)
    if kind.pattern == "border":
        return _soft(wing.radius - rng.uniform(0.42, 0.56), 12)
    if kind.pattern == "eyespots":
        spot = _distance((wing.along - rng.uniform(0.52, 0.66)) * 1.7, wing.across - rng.uniform(-0.15, 0.15))
        spot = spot / rng.uniform(0.38, 0.52)
        return _soft(1 - spot, 6) * (1 - _soft(0.62 - spot, 10)) + _soft(0.30 - spot, 12)
    dots = np.zeros_like(wing.along)
    for _ in range(round(kind.marks * _vary(rng, 0.2))):
        spot = _distance((wing.along - rng.uniform(0.2, 0.85)) * 1.7, wing.across - rng.uniform(-0.6, 0.6))
        dots = np.maximum(dots, _soft(rng.uniform(0.10, 0.17) - spot, 30))
    return dots


def _animal_coordinates(rng: np.random.Generator, size: int) -> tuple[Plane, Plane]:
    """Turn, shift and scale the animal; `x` is its distance from the axis of the body, since it is symmetric."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    column, row = axis[None, :] - rng.uniform(-0.1, 0.1), axis[:, None] - rng.uniform(-0.1, 0.1)
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(1.1, 1.4)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return np.abs(column * cos + row * sin), row * cos - column * sin


def _individual_colours(kind: _Species, rng: np.random.Generator) -> tuple[Colour, Colour]:
    palette = np.array([_GROUNDS[kind.ground], _MARKS[kind.mark]])
    ground, mark = palette + rng.normal(0, 0.03, (2, 3)) + rng.normal(0, 0.04, (2, 1))
    worn = rng.uniform(0, 0.2)
    ground = ground * (1 - worn) + ground.mean() * worn
    return ground.clip(0.05, 0.95).astype(np.float32), mark.clip(0.05, 0.95).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> npt.NDArray[np.floating]:
    """A blotchy ground such as bark, leaves or a wall, of any colour: (size, size, 3) float32."""
    surroundings = np.array([[0.46, 0.53, 0.36], [0.46, 0.40, 0.34], [0.70, 0.69, 0.66], [0.42, 0.44, 0.47]])
    base = surroundings[rng.integers(len(surroundings))] + rng.normal(0, 0.03, 3)
    canvas = np.broadcast_to(base.astype(np.float32), (size, size, 3)).copy()
    for cells, strength in ((4, 0.08), (12, 0.05), (40, 0.03)):
        blotches = Image.fromarray(rng.normal(0, strength, (cells, cells)).astype(np.float32))
        canvas += np.asarray(blotches.resize((size, size), Image.Resampling.BICUBIC))[..., None]
    return canvas


def _photograph(canvas: npt.NDArray[np.floating], rng: np.random.Generator) -> RGB:
    """Light it, add a sensor's noise, and round it to bytes."""
    size = len(canvas)
    slope = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    light = 1 + rng.uniform(-0.25, 0.25) * slope[:, None] + rng.uniform(-0.25, 0.25) * slope[None, :]
    tint = rng.uniform(0.85, 1.1) * rng.normal(1, 0.03, 3)
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(0.005, 0.03)
    picture = canvas * light[..., None].astype(np.float32) * tint.astype(np.float32) + noise
    return (picture * 255).clip(0, 255).astype(np.uint8)


def _encode(picture: RGB, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _vary(rng: np.random.Generator, share: float) -> float:
    return float(rng.uniform(1 - share, 1 + share))


def _ellipse(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    """0 at the centre, 1 on the ellipse."""
    return _distance(x / half_width, y / half_height)


def _distance(x: Plane, y: Plane) -> Plane:
    return np.asarray(np.sqrt(x * x + y * y))


def _soft(distance: Plane, sharpness: float) -> Plane:
    """1 inside (positive), 0 outside, and a soft edge."""
    return np.asarray(np.clip(0.5 + distance * sharpness, 0, 1))


def _paint(canvas: npt.NDArray[np.floating], colour: npt.NDArray[np.floating], opacity: Plane) -> None:
    """Lay a colour, one or one for each pixel, over the canvas in place."""
    canvas += (colour - canvas) * opacity[..., None]
