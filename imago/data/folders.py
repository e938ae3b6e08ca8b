"""Pictures in class folders, with or without folders for the splits above them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imago.data.dataset import Split
from imago.data.listing import Listing, Row, class_named, ignored, is_picture, read_file, readable_name, split_named
from imago.errors import ConfigError, DataRefused


@dataclass(frozen=True, slots=True)  # there may be millions
class File:
    """A file below a root; `name` is its path relative to it, with `/` between its parts."""

    name: str
    path: str
    size: int
    changed: tuple[int, int]  # when its bytes were, and when anything about it was, in nanoseconds

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))


@dataclass(frozen=True)
class Walk:
    """The files below a root, sorted by name, and how many links were not followed."""

    files: list[File]
    refused_links: int


def walk(root: Path) -> Walk:
    """List the plain files below a folder, hidden ones left out.

    A link is followed where it stays within the root, a linked folder once: a loop ends there. Raises ConfigError for a
    folder that may not be read.
    """
    top = os.path.realpath(root)
    files: list[File] = []
    refused = 0
    followed: set[str] = set()
    open_folders: list[tuple[str, str, frozenset[str]]] = [(top, "", frozenset({top}))]
    while open_folders:
        folder, prefix, above = open_folders.pop()
        for entry in _entries(folder):
            name = prefix + entry.name
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                inside = Path(real).is_relative_to(top) and Path(real).exists()
                if not inside or real in above or real in followed:
                    refused += 1
                    continue
                if entry.is_dir():
                    followed.add(real)
            if entry.is_dir():
                open_folders.append((entry.path, f"{name}/", above | {os.path.realpath(entry.path)}))
            elif entry.is_file():
                status = entry.stat()
                files.append(File(name, entry.path, status.st_size, (status.st_mtime_ns, status.st_ctime_ns)))
    return Walk(sorted(files, key=lambda file: file.name), refused)


def list_folder(root: Path, shown: str) -> Listing:
    """List a folder of class folders, or of split folders with class folders in them; `shown` names it in messages.

    Raises DataRefused where there is no labelled picture, ConfigError where the splits are ambiguous.
    """
    found = walk(root)
    pictures = [file for file in found.files if is_picture(file.name)]
    if not pictures:
        raise DataRefused(
            f"There are no pictures in {shown} ({len(found.files)} other files): "
            "it should hold a folder for each class, or train/, val/ and test/ with such folders in them."
            + (" A Parquet file that holds pictures is named itself." if _parquet(found) else "")
        )
    depth = _wrapper_depth(pictures)
    splits = _split_folders(pictures, depth, shown)
    if splits:
        rows, loose = _rows(pictures, depth, splits, shown)
        named = ", ".join(f"{name}/" for name in splits)
        origin = f"{shown} was read as split folders ({named}), since each of them holds class folders."
    else:
        rows, loose = _rows(pictures, depth, None, shown)
        origin = f"{shown} was read as class folders, since it has no train/ with class folders in it."
    if not rows:
        raise _without_labels(shown, len(pictures))
    others = [file.name for file in found.files if not is_picture(file.name)]
    tables = [name for name in others if "/" not in name and name.lower().endswith((".csv", ".tsv", ".parquet"))]
    if tables and len({row.label for row in rows}) == 1:
        origin += f" If {readable_name(tables[0])} says the labels, name that file."
    origin += ignored(others, "files that are no pictures") + ignored(loose, "pictures outside the class folders")
    if found.refused_links:
        origin += f" Did not follow {found.refused_links} links that loop, lead nowhere or leave the folder."
    return Listing(rows, origin)


def _parquet(found: Walk) -> bool:
    return any(file.name.lower().endswith(".parquet") for file in found.files)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise ConfigError(f"The folder {readable_name(folder)} cannot be read: {error.strerror}.") from error


def _wrapper_depth(pictures: Sequence[File]) -> int:
    """Return in how many folders all lies that holds class or split folders, as in unpacked archives.

    Pictures beside such a folder, as of a cover, do not count.
    """
    depth = 0
    while True:
        deeper = [file.parts for file in pictures if len(file.parts) > depth + 1]
        tops = {parts[depth] for parts in deeper}
        holds_folders = all(len(parts) > depth + 2 for parts in deeper)
        if len(tops) != 1 or not holds_folders or split_named(next(iter(tops))):
            return depth
        depth += 1


def _split_folders(pictures: Sequence[File], depth: int, shown: str) -> dict[str, Split]:
    """Return the split that each split folder stands for, or nothing where there are only class folders."""
    holding_classes = sorted({file.parts[depth] for file in pictures if len(file.parts) > depth + 2})
    splits = {name: split for name in holding_classes if (split := split_named(name)) is not None}
    tops = {file.parts[depth] for file in pictures if len(file.parts) > depth + 1}
    inner = {file.parts[depth + 1] for file in pictures if len(file.parts) > depth + 2}
    if inner and not splits and all(split_named(name) for name in inner):
        raise DataRefused(
            f"{shown} has {', '.join(sorted(inner))} inside its class folders: put the splits above the classes, or "
            "name a manifest with the columns path, label and split."
        )
    if "train" not in splits.values():
        if not all(split_named(name) for name in tops):
            return {}
        if splits:
            raise DataRefused(f"{shown} has {', '.join(splits)} but no train folder: there is nothing to train on.")
        raise _without_labels(shown, len(pictures))
    if len(set(splits.values())) < len(splits):
        raise ConfigError(f"{shown} has two folders for one split among {', '.join(splits)}: keep one of them.")
    return splits


def _without_labels(shown: str, count: int) -> DataRefused:
    return DataRefused(
        f"The {count} pictures in {shown} have no labels: sort them into a folder for each class, "
        "or name a CSV or Parquet manifest with the columns path and label."
    )


def _rows(
    pictures: Sequence[File], depth: int, splits: dict[str, Split] | None, shown: str
) -> tuple[list[Row], list[str]]:
    """Return the rows, and the names of the pictures that lie in no class folder."""
    above_class = depth + (1 if splits else 0)
    rows: list[Row] = []
    loose: list[str] = []
    classes: dict[str, str] = {}
    for file in pictures:
        parts = file.parts
        if len(parts) < above_class + 2 or (splits is not None and parts[depth] not in splits):
            loose.append(file.name)
            continue
        folder = parts[above_class]
        if folder not in classes:
            classes[folder] = class_named(folder, shown)
        split = splits[parts[depth]] if splits is not None else None
        rows.append(Row(readable_name(file.name), classes[folder], split, partial(read_file, file.path)))
    return rows, loose
