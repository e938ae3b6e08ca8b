"""Pictures of a Hugging Face data set: one saved to disk, or one of the hub by its name."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from imago.data.dataset import Split
from imago.data.listing import MAX_FILE_BYTES, Listing, Row, class_named, is_picture, read_file, split_named
from imago.errors import ConfigError, DataRefused
from imago.home import home

_PATIENCE = 10  # seconds


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is one that `save_to_disk` wrote."""
    whole = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return whole or (folder / "dataset_dict.json").is_file()


def list_saved(folder: Path, shown: str, *, fetched: bool = False) -> Listing:
    """List the pictures of a data set that `save_to_disk` wrote. Raises ConfigError where it cannot be read.

    Of one that was `fetched` from elsewhere no file is read that lies outside its folder.
    """
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"The saved data set {shown} cannot be read: {' '.join(str(error).split())}") from error
    return _list(data, shown, "a saved Hugging Face data set", (folder,) if fetched else None)


def list_parquet(file: Path, shown: str) -> Listing:
    """List the pictures in a Parquet file that holds them, by its columns `image`, `label`, and perhaps `id` and
    `split`: as `data export` writes it, or a hub. Raises ConfigError where it cannot be read.

    No file is read that lies outside its folder.
    """
    import datasets

    try:
        data = datasets.Dataset.from_parquet(str(file), cache_dir=str(home() / "sources" / "parquet"))
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(f"The Parquet file {shown} cannot be read: {' '.join(str(error).split())}") from error
    for name, feature in data.features.items():
        if name.casefold() == "image" and feature in (datasets.Value("binary"), datasets.Value("large_binary")):
            data = data.cast_column(name, datasets.Image(decode=False))
    return _list(data, shown, "a Parquet file of pictures", (file.parent,))


def list_named(name: str) -> Listing:
    """List the pictures of a data set of the hub, which is downloaded first. Raises ConfigError where that fails."""
    import datasets
    from huggingface_hub.errors import HTTPError

    revision = commit(name)
    try:
        with contextlib.nullcontext() if revision else _offline():  # which would be tried for half a minute
            data = datasets.load_dataset(name, revision=revision)
    except (OSError, ValueError, RuntimeError, HTTPError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"'{name}' is no folder here, and the Hugging Face data set '{name}' cannot be loaded ({reason}): check "
            "its name and the network, or save it with `save_to_disk` elsewhere and give its folder."
        ) from error
    return _list(data, f"hf:{name}", "a Hugging Face data set", _caches())


def _caches() -> tuple[Path, ...]:
    """Return where the hub's clients put what they have fetched."""
    import datasets
    import huggingface_hub

    known = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    return tuple(Path(place) for place in (*known, huggingface_hub.constants.HF_HUB_CACHE))


def commit(name: str) -> str | None:
    """Return the newest commit of a data set of the hub, or None where the hub cannot be reached.

    Raises ConfigError for a name that is none, or that the hub does not know or does not give.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

    if not name.strip():
        raise ConfigError("'hf:' names no data set: write hf:owner/name.")
    try:
        return huggingface_hub.HfApi().dataset_info(name, timeout=_PATIENCE).sha
    except (HfHubHTTPError, HFValidationError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
            return None
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"'{name}' is no folder here, and there is no such Hugging Face data set for you ({reason}): check its "
            "name, or log in with `hf auth login` where it is private."
        ) from error
    except (HTTPError, OfflineModeIsEnabled):
        return None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Read from the hub's caches alone."""
    import datasets
    import huggingface_hub

    modules: list[Any] = [huggingface_hub.constants, datasets.config]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _list(data: Any, shown: str, kind: str, roots: tuple[Path, ...] | None) -> Listing:
    import datasets

    parts: dict[str, Any] = dict(data) if isinstance(data, datasets.DatasetDict) else {"": data}
    splits = {part: split_named(part) for part in parts}
    if len(parts) == 1:
        named = any("split" in rows.features for rows in parts.values())  # which says more than the part's name
        splits = {part: split if split == "train" and not named else None for part, split in splits.items()}
        used = parts
    else:
        used = {part: rows for part, rows in parts.items() if splits[part] is not None}
    if len(parts) > 1 and "train" not in splits.values():
        raise DataRefused(f"{shown} has the splits {', '.join(parts)}, and none of them is train.")
    if len({splits[part] for part in used}) < len(used):
        raise ConfigError(f"{shown} has two splits of one kind among {', '.join(used)}: keep one of them.")
    ids = _ids(used)
    rows = [row for part, some in used.items() for row in _rows(some, part, splits[part], ids.get(part), shown, roots)]
    if not rows:
        raise DataRefused(f"There are no labelled pictures in {shown}.")
    unlabelled = sum(len(some) for some in used.values()) - len(rows)
    by_column = "split column" if splits == dict.fromkeys(used) and rows[0].split else ""
    with_splits = by_column or (f"splits {', '.join(used)}" if any(used) else "")
    origin = f"{shown} was read as {kind}" + (f", with its {with_splits}." if with_splits else ", without splits.")
    left_out = [part for part in parts if part not in used]
    origin += f" Ignored its splits {', '.join(left_out)}." if left_out else ""
    return Listing(rows, origin + (f" Left out {unlabelled:,} without a label." if unlabelled else ""))


def _rows(
    data: Any, part: str, split: Split | None, ids: list[str] | None, shown: str, roots: tuple[Path, ...] | None
) -> list[Row]:
    import datasets

    image, label = _columns(data, shown)
    feature = data.features[label]
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    pictures = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    extensions = [PurePosixPath(path or "").suffix.lower() for path in _paths(pictures, image)]
    splits = _splits(data, shown) if split is None else None
    rows: list[Row] = []
    for index, value in enumerate(data[label]):
        if value is None or (names is not None and value < 0):
            continue
        name = class_named(names[value] if names is not None else str(value), shown)
        made = "/".join(filter(None, (part, name, f"{index:06d}{extensions[index]}")))
        of_row = splits[index] if splits else split
        rows.append(Row(ids[index] if ids else made, name, of_row, partial(_read, pictures, image, index, roots)))
    return rows


def _ids(parts: dict[str, Any]) -> dict[str, list[str]]:
    """Return the column `id` of each part, where it tells all rows apart."""
    if not all("id" in data.features for data in parts.values()):
        return {}
    ids = {part: [str(value) for value in data["id"]] for part, data in parts.items()}
    every = [one for some in ids.values() for one in some]
    return ids if len(set(every)) == len(every) else {}


def _splits(data: Any, shown: str) -> list[Split] | None:
    """Return the column `split`, where there is one. Raises ConfigError for a word that names none."""
    if "split" not in data.features:
        return None
    splits: list[Split] = []
    for word in data["split"]:
        split = split_named(str(word))
        if split is None:
            raise ConfigError(f"The split '{word}' in {shown} is none of train, val, valid, validation and test.")
        splits.append(split)
    return splits


def _columns(data: Any, shown: str) -> tuple[str, str]:
    """Return the names of the columns of pictures and labels."""
    import datasets

    features = data.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    named = [name for known in ("label", "labels") for name in features if name.casefold() == known]
    labels = [name for name in named if isinstance(features[name], datasets.ClassLabel | datasets.Value)]
    labels += [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not images or not labels:
        lacking = "picture" if not images else "label"
        raise ConfigError(f"{shown} has no {lacking} column: its columns are {', '.join(features)}.")
    return images[0], labels[0]


def _paths(pictures: Any, image: str) -> list[str | None]:
    """Return the paths that the pictures had, without touching their bytes."""
    paths: list[str | None] = []
    for batch in pictures.with_format("arrow").iter(batch_size=1000):
        for chunk in batch.column(image).chunks:
            paths.extend(chunk.field("path").to_pylist())
    return paths


def _read(pictures: Any, image: str, index: int, roots: tuple[Path, ...] | None) -> bytes:
    value: dict[str, Any] = pictures[index][image] or {}
    data, path = value.get("bytes"), value.get("path")
    if data is not None:
        return bytes(data) if len(data) <= MAX_FILE_BYTES else b""
    if not path or not is_picture(path) or not Path(path).is_absolute():
        return b""
    real = Path(os.path.realpath(path))
    inside = roots is None or any(real.is_relative_to(os.path.realpath(root)) for root in roots)
    return read_file(path) if inside else b""
