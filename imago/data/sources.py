"""From what a person names as the source of pictures to a data set of it."""

import contextlib
import hashlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from imago.config import DataConfig
from imago.data import hugging_face, remote
from imago.data.dataset import SPLITS, ImageDataset
from imago.data.export import PARQUET
from imago.data.folders import list_folder, walk
from imago.data.listing import Listing, Row, split_named
from imago.data.manifest import SUFFIXES, holds_pictures, list_manifest, read_manifest
from imago.data.splitting import assign_splits, look_alike_groups
from imago.data.synthetic import synthetic_dataset
from imago.dependencies import digest_of, sources_of
from imago.errors import ConfigError, DataRefused, did_you_mean
from imago.files import newest_first
from imago.home import home

_READERS = 2
_AHEAD = 256  # pictures
_SHARE = 64  # pictures that a reader reads one after the other
_KEPT = 4  # data sets under the home
_ABANDONED = 24 * 3600  # seconds
_BARE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_dataset(config: DataConfig, seed: int) -> ImageDataset:
    """Read the pictures that the configuration names; those whose files cannot be read have no bytes.

    They are read once: what was read is kept under the home, and mapped from there as long as neither the source nor
    the configuration nor the code that reads changes. Splits that are missing are made, and `classes`, `subset` and
    `limit_per_class` applied, the same for the same seed. Raises ConfigError for a source that cannot be used as
    named, DataRefused for one without a labelled picture.
    """
    if config.source is None:
        rows, origin = _rows(config, seed)
        ids, images, labels, splits, attributes = zip(*_read(rows), strict=True)
        return ImageDataset.from_rows(ids, images, labels, splits, attributes, origin=origin)
    remote.refuse_secrets(config.source)
    config = config.model_copy(update={"source": spelt_out(config.source)})
    folder = home() / "datasets"
    folder.mkdir(exist_ok=True)
    _sweep(folder)
    known = folder / f"{_key(config, seed)}.arrow"
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):  # not there, or damaged
        os.utime(known)  # the ones used last are kept
        return ImageDataset.read(known)
    rows, origin = _rows(config, seed)
    fresh = folder / f".{known.stem}.{uuid4().hex[:8]}"
    try:
        dataset = ImageDataset.stored(fresh, _read(rows), origin=origin)
        if _of_a_hub(str(config.source)):
            return replace(dataset, file=None)
        fresh.replace(known)
        for old in newest_first(folder.glob("*.arrow"))[_KEPT:]:
            old.unlink(missing_ok=True)
        return replace(dataset, file=known)
    finally:
        fresh.unlink(missing_ok=True)  # what is mapped stays, without a name


def draw_pictures(source: str, count: int, seed: int, *, without: Collection[str]) -> list[bytes]:
    """Return the files of at most so many pictures of a source, of other classes than those given, drawn by the seed.

    Those that cannot be read are passed over. Raises what `load_dataset` raises for a source that cannot be used.
    """
    remote.refuse_secrets(source)
    listing = _list(DataConfig(source=spelt_out(source)), seed)
    rows = sorted((row for row in listing.rows if row.label not in without), key=lambda row: _drawn(row, seed))
    return [image for row in rows[:count] if (image := row.read())]


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed had begun to write."""
    for left in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()


def check_source(config: DataConfig) -> None:
    """List what lies on this machine without reading a picture. Raises what `load_dataset` raises for its listing."""
    source = spelt_out(config.source) if config.source else "hf:"
    if not _of_a_hub(source) and not remote.is_remote(source):
        _of_classes(_list_path(_local(source), source).rows, config.classes)


def spelt_out(source: str) -> str:
    """Return `hf:owner/name` for a bare `owner/name` that cannot be a path here, and any other source as it is."""
    bare = _BARE_NAME.fullmatch(source) and not source.lower().endswith(SUFFIXES)
    return f"hf:{source}" if bare and not Path(source).parent.exists() else source


def _of_a_hub(source: str) -> bool:
    """Tell whether a source is a hub's name of a data set, of which it is not known what lies behind it today."""
    return source.startswith("kaggle:") or _of_hugging_face(source)


def _of_hugging_face(source: str) -> bool:
    return source.startswith("hf:") and not source.startswith("hf://")


def _key(config: DataConfig, seed: int) -> str:
    """Return a digest of all that decides what is read."""
    reading = config.model_dump_json(exclude={"checks", "min_per_class", "min_side"})
    state = source_state(config.source)
    place = str(Path(str(config.source)).absolute())
    return hashlib.sha256(repr((place, state, reading, seed, digest_of(sources_of(__name__)))).encode()).hexdigest()


def _rows(config: DataConfig, seed: int) -> tuple[list[Row], str]:
    listing = _list(config, seed)
    rows = _of_classes(listing.rows, config.classes)
    rows, made = _with_splits(rows, config, seed)
    rows = _sampled(rows, config, seed)
    return sorted(rows, key=lambda row: (str(row.split), row.id)), listing.origin + made


def _read(rows: list[Row]) -> Iterator[tuple[str, bytes, str, str, str | None]]:
    """Give the rows with their files' bytes, read ahead by a few."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(rows), _AHEAD):
            shares = [rows[at : at + _SHARE] for at in range(start, min(start + _AHEAD, len(rows)), _SHARE)]
            for share, images in zip(
                shares, pool.map(lambda share: [row.read() for row in share], shares), strict=True
            ):
                for row, image in zip(share, images, strict=True):
                    yield row.id, image, row.label, str(row.split), row.attributes


def fetched(source: str) -> Path:
    """Return the file or folder that a source names, brought to this machine first where it lies elsewhere.

    Raises ConfigError where there is none, and for the name of a Hugging Face data set, which is neither.
    """
    if _of_hugging_face(spelt_out(source)):
        raise ConfigError(f"{source} is a data set, not a folder of pictures: give the path or address of a folder.")
    if source.startswith("kaggle:"):
        return remote.fetch_kaggle(source.removeprefix("kaggle:"))
    if remote.is_remote(source):
        return remote.fetch(source, home() / "sources")
    return _local(source)


def source_state(source: str | None) -> str:
    """Return a digest that changes when the files of a source do, by their names, sizes and times of change.

    A hub's data set is known by its commit, where the hub can be asked, and else by its name. Raises ConfigError where
    there is no such source.
    """
    if source is None:
        return "synthetic"
    source = spelt_out(source)
    if _of_a_hub(source):
        version = hugging_face.commit(source.removeprefix("hf:")) if _of_hugging_face(source) else None
        return f"{source}@{version}" if version else source
    if remote.is_remote(source):
        return remote.state(source)
    path = _local(source)
    if path.is_dir():
        facts = [(file.name, file.size, file.changed) for file in walk(path).files]
    else:
        path = path.resolve()  # its pictures lie beside it, not beside a link to it
        lists = path.suffix.lower() in SUFFIXES and not holds_pictures(path)
        named = {row.path for row in read_manifest(path, source)} if lists else set()
        facts = [_facts(path, path.name), *(_facts(path.parent / name, name) for name in sorted(named))]
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _list(config: DataConfig, seed: int) -> Listing:
    source = config.source
    if source is None:
        return _listing_of(synthetic_dataset(config.synthetic, config.image_size, seed))
    if _of_hugging_face(source):
        return hugging_face.list_named(source.removeprefix("hf:"))
    return _list_path(fetched(source), source, elsewhere=source.startswith("kaggle:") or remote.is_remote(source))


def _listing_of(dataset: ImageDataset) -> Listing:
    columns = zip(dataset.ids, dataset.labels, dataset.splits, strict=True)
    rows = [
        Row(identity, label, split_named(split), partial(dataset.image, index))
        for index, (identity, label, split) in enumerate(columns)
    ]
    return Listing(rows, dataset.origin)


def _local(source: str) -> Path:
    """Return the file or folder that is meant. Raises ConfigError where there is none."""
    path = Path(source.removeprefix("file://"))
    try:
        path = path.expanduser()
        if source.strip() and path.exists():
            return path
        beside = [other.name for other in path.parent.iterdir()]
    except (OSError, ValueError, RuntimeError):  # no such parent or user, or a name that the file system does not take
        beside = []
    raise ConfigError(
        f"There is no file or folder '{source}' to read pictures from.{did_you_mean(path.name, beside)} "
        "A data set of a hub is named hf:owner/name or kaggle:owner/name."
    )


def _list_path(path: Path, shown: str, *, elsewhere: bool = False) -> Listing:
    if path.is_dir() and (path / PARQUET).is_file():
        path, shown = path / PARQUET, f"{shown}/{PARQUET}"
    if path.is_dir():
        if hugging_face.is_saved(path):
            return hugging_face.list_saved(path, shown, fetched=elsewhere)
        return list_folder(path, shown)
    if holds_pictures(path):
        return hugging_face.list_parquet(path, shown)
    if path.suffix.lower() in SUFFIXES:
        return list_manifest(path, shown)
    raise ConfigError(
        f"{shown} is neither a folder nor a manifest ({', '.join(SUFFIXES)}): unpack it, if it is an archive."
    )


def _of_classes(rows: list[Row], classes: Sequence[str] | None) -> list[Row]:
    if classes is None:
        return rows
    known = {row.label for row in rows}
    for name in classes:
        if name not in known:
            raise ConfigError(f"There is no class '{name}' (data.classes).{did_you_mean(name, known)}")
    if len(set(classes)) < 2:
        raise ConfigError("data.classes names fewer than two classes: a classifier needs at least two.")
    return [row for row in rows if row.label in set(classes)]


def _with_splits(rows: list[Row], config: DataConfig, seed: int) -> tuple[list[Row], str]:
    """Give every picture a split, and say how: all of them, or those of train where val or test is missing."""
    present = {row.split for row in rows}
    if present == set(SPLITS):
        return rows, ""
    from_all = None in present
    if not from_all and "train" not in present:
        raise DataRefused(f"There are no pictures to train on, only those of {', '.join(sorted(map(str, present)))}.")
    missing = [name for name in SPLITS if name not in present]
    divided = [index for index, row in enumerate(rows) if row.split in {None, "train"}]
    splits = assign_splits(
        [rows[index].label for index in divided],
        look_alike_groups(
            len(divided),
            lambda place: rows[divided[place]].read(),
            max_pixels=config.max_pixels,
            turned=config.turned_copies,
        ),
        val_fraction=config.val_fraction if "val" in missing else 0.0,
        test_fraction=config.test_fraction if "test" in missing else 0.0,
        seed=seed,
    )
    made = list(rows)
    for index, split in zip(divided, splits, strict=True):
        made[index] = replace(rows[index], split=split)
    were = "was" if len(missing) == 1 else "were"
    what = "The splits were" if from_all else f"{' and '.join(missing)} {were} taken from train,"
    return made, f" {what} made by class and by likeness from seed {seed}."


def _sampled(rows: list[Row], config: DataConfig, seed: int) -> list[Row]:
    """Keep some of the pictures of each class in each split, drawn by a hash of their ids and the seed."""
    if config.subset == 1 and config.limit_per_class is None:
        return rows
    shares: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        shares[row.label, row.split].append(row)

    def wanted(count: int) -> int:
        return min(config.limit_per_class or count, max(1, round(config.subset * count)))

    return [
        row
        for share in shares.values()
        for row in sorted(share, key=lambda row: _drawn(row, seed))[: wanted(len(share))]
    ]


def _drawn(row: Row, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {row.id}".encode()).digest()


def _facts(path: Path, name: str) -> tuple[str, int, tuple[int, int]]:
    try:
        status = path.stat()
    except OSError:
        return name, -1, (0, 0)
    return name, status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
