"""Writes a data set out for other programs: as split folders, or as one Parquet file."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from uuid import uuid4

import pyarrow.parquet as pq

from imago.data.dataset import SCHEMA, ImageDataset
from imago.data.listing import is_picture
from imago.data.picture_checks import EXTENSIONS
from imago.data.transforms import UnreadablePicture, open_picture
from imago.errors import ConfigError, ImagoError

Format = Literal["folders", "parquet"]
MARKER = ".imago-export.json"
PARQUET, CARD = "pictures.parquet", "DATASET_CARD.md"


SUFFIXES = {form: suffix for suffix, form in reversed(EXTENSIONS.items())}


def refuse_overlap(target: Path, source: str | None) -> None:
    """Raise ConfigError where what is exported would lie in its own source, or around it."""
    place = Path((source or "").removeprefix("file://")).expanduser()
    if source is None or not place.exists():
        return
    one, other = target.resolve(), place.resolve()
    if one == other or one.is_relative_to(other) or other.is_relative_to(one):
        raise ConfigError(f"{target} is, holds or lies in the source {source}, which stays as it is: name another.")


def export(dataset: ImageDataset, target: Path, layout: Format = "folders", *, card: str | None = None) -> None:
    """Write a data set into a folder, whole or not at all; an earlier export there is replaced.

    Folders are `split/label/name`, the bytes as they are; Parquet has the columns of the dataset. A
    `card` is written beside them.
    Raises ConfigError where the folder holds anything else, or a label cannot be a folder's name.
    """
    if target.exists() and not _may_replace(target):
        raise ConfigError(f"{target} holds more than an earlier export: name another folder, or empty this one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    earlier = partial.with_name(f"{partial.name}.earlier")
    partial.mkdir()
    try:
        if layout == "parquet":
            with pq.ParquetWriter(partial / PARQUET, SCHEMA, compression="none") as writer:
                for batch in dataset.batches():
                    writer.write_batch(batch)
        else:
            for index, path in _paths(dataset):
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                (partial / path).write_bytes(dataset.image(index))
        if card is not None:
            (partial / CARD).write_text(card, encoding="utf-8")
        facts: dict[str, object] = {
            "origin": dataset.origin,
            "fingerprint": dataset.fingerprint,
            "pictures": len(dataset),
        }
        facts["files"] = _listing(partial)
        (partial / MARKER).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if target.exists():
            target.replace(earlier)
        partial.replace(target)
    except OSError as error:
        raise ImagoError(f"{target} could not be written: {error.strerror or error}.") from error
    finally:
        if earlier.exists() and not target.exists():
            earlier.replace(target)
        for folder in (partial, earlier):
            shutil.rmtree(folder, ignore_errors=True)


def _may_replace(target: Path) -> bool:
    """Whether there is nothing but what an export has written: an empty folder, or the files that it lists."""
    if not target.is_dir():
        return False
    files = _listing(target)
    try:
        return bool(files == json.loads((target / MARKER).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return files == _NOTHING
    except (ValueError, KeyError, TypeError):
        return False


def _listing(folder: Path) -> str:
    """Return a digest of the names and sizes of what is in a folder, but for the marker."""
    found = sorted(path for path in folder.rglob("*") if not path.is_dir() and path != folder / MARKER)
    facts = [(path.relative_to(folder).as_posix(), path.lstat().st_size) for path in found]
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _suffix(data: bytes) -> str:
    try:
        return SUFFIXES.get(str(open_picture(data).format), ".jpg")  # of an MPO, too
    except UnreadablePicture:
        return ".jpg"


_NOTHING = hashlib.sha256(b"[]").hexdigest()


def _paths(dataset: ImageDataset) -> Iterator[tuple[int, PurePosixPath]]:
    """Give each picture a path of its own; of two with one name, the later is told apart by its digest or number."""
    taken: set[str] = set()
    rows = zip(dataset.ids, dataset.labels, dataset.splits, dataset.digests, strict=True)
    for index, (identity, label, split, digest) in enumerate(rows):
        if label in {"", ".", ".."} or "/" in label or "\\" in label or "\0" in label or label.startswith("."):
            raise ConfigError(f"The class {label!r} cannot name a folder: rename it, or export with --format parquet.")
        name = PurePosixPath(identity.replace("\\", "/")).name.lstrip(".")
        stem, suffix = PurePosixPath(name).stem or digest[:8], PurePosixPath(name).suffix
        if not is_picture(name):
            stem, suffix = name or digest[:8], _suffix(dataset.image(index))
        candidates = (f"{stem}{suffix}", f"{stem}-{digest[:8]}{suffix}", f"{stem}-{digest[:8]}-{index}{suffix}")
        path = next(p for p in (PurePosixPath(split, label, c) for c in candidates) if str(p).casefold() not in taken)
        taken.add(str(path).casefold())
        yield index, path
