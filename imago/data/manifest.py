"""Pictures named by a table: a CSV or Parquet file with a path, a label and perhaps a split on each row."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from imago.data.attributes import LEAST_TIMES, LONGEST, MOST_COLUMNS, encode_attributes
from imago.data.dataset import Split
from imago.data.listing import Listing, Row, class_named, is_plain_file, read_file, split_named
from imago.errors import ConfigError, DataRefused

SUFFIXES = (".csv", ".tsv", ".parquet")
_NAMED = 8  # columns that are left out
_DELIMITERS = (",", ";", "\t")  # the first of those that are in the header equally often
COLUMNS = {"path": ("path", "filepaths"), "label": ("label", "labels"), "split": ("split", "data set")}
_Record = tuple[int, dict[str, str], dict[str, str]]  # number of the row, its columns by `COLUMNS`, some others


@dataclass(frozen=True, slots=True)  # there may be millions
class Entry:
    """A row of a manifest: a path relative to the manifest's folder, which it does not leave, with `/` in it."""

    number: int
    path: str
    label: str
    split: Split | None
    others: dict[str, str]  # what stands in the other columns, by their names


def holds_pictures(path: Path) -> bool:
    """Tell whether a file is a Parquet table of the pictures themselves, and not of their paths."""
    if path.suffix.lower() != ".parquet":
        return False
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):  # which `read_manifest` says
        return False
    named = {name.strip().casefold() for name in schema.names}
    return "image" in named and not named & set(COLUMNS["path"])


def list_manifest(path: Path, shown: str) -> Listing:
    """List the pictures of a manifest; a missing one is a row without bytes.

    Raises ConfigError for a manifest that cannot be read or a path that leaves its folder, DataRefused where none of
    its files exists.
    """
    entries = read_manifest(path, shown)
    root = path.resolve().parent
    names = _distinct_names(entries)
    attributes, free = encode_attributes([entry.others for entry in entries], [entry.label for entry in entries])
    rows = [
        Row(name, entry.label, entry.split, partial(_read_within, root, entry.path), told)
        for name, entry, told in zip(names, entries, attributes, strict=True)
    ]
    missing = sum(not is_plain_file(root / entry.path) for entry in entries)
    if missing == len(entries):
        raise DataRefused(
            f"None of the {missing} files that {shown} names exists (the first is {entries[0].path}): "
            "paths are read relative to the manifest's own folder."
        )
    with_splits = "with a split column" if entries[0].split else "without splits"
    origin = f"{shown} was read as a manifest of {len(rows)} rows, {with_splits}, its paths relative to its folder."
    if missing:
        origin += f" {missing} of the files that it names do not exist."
    return Listing(rows, origin + _columns_left_out(_unread(path, shown), free))


def _columns_left_out(unread: list[str], free: list[str]) -> str:
    """Return a sentence a reason that columns are no parts to judge the pictures by, or nothing for no columns."""
    said = ""
    if free:
        said += (
            f" Ignored {_some_columns(free)}: texts of which none occurs {LEAST_TIMES} times make no parts to judge "
            "by; write what matters of them as a few words."
        )
    if unread:
        said += (
            f" Ignored {_some_columns(unread)}: besides path, label and split only the first {MOST_COLUMNS} columns "
            "of texts or numbers are read; put those that matter first."
        )
    return said


def _some_columns(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"


def read_manifest(path: Path, shown: str) -> list[Entry]:
    """Return the rows of a manifest, checked. Raises ConfigError with the row, DataRefused where there is none."""
    records = _parquet_records(path, shown) if path.suffix.lower() == ".parquet" else _csv_records(path, shown)
    entries = [_entry(number, record, others, shown) for number, record, others in records]
    if not entries:
        raise DataRefused(f"The manifest {shown} has no rows.")
    without = [entry.number for entry in entries if entry.split is None]
    if without and len(without) < len(entries):
        raise ConfigError(f"Row {without[0]} of {shown} has no split while others do: give each row one, or none.")
    return entries


def _entry(number: int, record: dict[str, str], others: dict[str, str], shown: str) -> Entry:
    where = f"row {number} of {shown}"
    word = record.get("split", "")
    split = split_named(word)
    if split is None and word.strip():
        raise ConfigError(f"The split '{word}' in {where} is none of train, val, valid, validation and test.")
    return Entry(number, _path_within(record["path"], where), class_named(record["label"], where), split, others)


def _path_within(text: str, where: str) -> str:
    """Return a path without `.` and `..`, with `/` between its parts. Raises ConfigError where it is not relative."""
    given = text.strip().replace("\\", "/")
    if not given or "\0" in given:
        raise ConfigError(f"There is no path in {where}.")
    if given.startswith("/") or given[1:2] == ":" or "://" in given:
        raise ConfigError(f"The path '{text}' in {where} is absolute: write it relative to the manifest's folder.")
    parts: list[str] = []
    for part in PurePosixPath(given).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise ConfigError(f"The path '{text}' in {where} leaves the manifest's folder: keep the pictures below it.")
    if not parts:
        raise ConfigError(f"The path '{text}' in {where} names the manifest's own folder, not a picture.")
    return "/".join(parts)


def _distinct_names(entries: list[Entry]) -> list[str]:
    """Name each row by its path, and those that repeat one by their row too, so that each can be told apart."""
    seen: set[str] = set()
    names: list[str] = []
    for entry in entries:
        path = PurePosixPath(entry.path)
        again = str(path.with_name(f"{path.stem} (row {entry.number}){path.suffix}"))
        names.append(again if entry.path in seen else entry.path)
        seen.add(entry.path)
    return names


def _read_within(root: Path, name: str) -> bytes:
    path = Path(os.path.realpath(root / name))
    return read_file(path) if path.is_relative_to(root) else b""


def _csv_records(path: Path, shown: str) -> Iterator[_Record]:
    """Yield the rows, the header being row 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _csv_rows(file, shown)
            columns = next(rows, [])
            places, others = _places(columns, shown), _first(_other_places(columns))
            for number, row in enumerate(rows, start=2):
                if not row:
                    continue
                if len(row) <= max(places.values()):
                    raise ConfigError(f"Row {number} of {shown} has only {len(row)} columns.")
                record = {column: row[place] for column, place in places.items()}
                yield number, record, {name: row[place] for name, place in others.items() if place < len(row)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"The manifest {shown} cannot be read as CSV in UTF-8: {error}.") from error


def _csv_rows(file: TextIO, shown: str) -> Iterator[list[str]]:
    header = file.readline()
    if not header:
        raise ConfigError(f"The manifest {shown} is empty: it needs a row of names, such as path,label.")
    file.seek(0)
    return csv.reader(file, strict=True, delimiter=max(_DELIMITERS, key=header.count))


def _parquet_records(path: Path, shown: str) -> Iterator[_Record]:
    try:
        file = pq.ParquetFile(path)
        header = file.schema_arrow.names
        places = (_places(header, shown), _first(_other_places(_plain_names(file.schema_arrow))))
        table = file.read(columns=sorted({header[at] for some in places for at in some.values()}))
        needed, others = (
            {name: table.column(header[at]).cast(pa.string()).to_pylist() for name, at in some.items()}
            for some in places
        )
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"The manifest {shown} cannot be read as Parquet: {' '.join(str(error).split())}") from error
    for index in range(table.num_rows):
        record, more = ({name: values[index] or "" for name, values in some.items()} for some in (needed, others))
        yield index + 1, record, more


def _places(header: list[str], shown: str) -> dict[str, int]:
    names = [name.strip().casefold() for name in header]
    places = {
        column: next(names.index(known) for known in spellings if known in names)
        for column, spellings in COLUMNS.items()
        if any(known in names for known in spellings)
    }
    for column in ("path", "label"):
        if column not in places:
            wanted = " or ".join(f"'{name}'" for name in COLUMNS[column])
            raise ConfigError(f"The manifest {shown} has no column {wanted}: its columns are {', '.join(header)}.")
    return places


def _other_places(header: list[str]) -> dict[str, int]:
    """Return where the columns are that are neither path nor label nor split, by their names, cut short."""
    spellings = {"", *(name for known in COLUMNS.values() for name in known)}
    return {name.strip()[:LONGEST]: at for at, name in enumerate(header) if name.strip().casefold() not in spellings}


def _first(places: dict[str, int]) -> dict[str, int]:
    return dict(islice(places.items(), MOST_COLUMNS))


def _unread(path: Path, shown: str) -> list[str]:
    """Return the names of the other columns of a manifest that `read_manifest` passes over."""
    if path.suffix.lower() == ".parquet":
        schema = pq.read_schema(path)
        names, plain = schema.names, _plain_names(schema)
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = plain = next(_csv_rows(file, shown), [])
    read = _first(_other_places(plain))
    return [name for name in _other_places(names) if name not in read]


def _plain_names(schema: pa.Schema) -> list[str]:
    """Return the names of the columns, empty for what is neither text nor number, or not the only one of its name."""
    plain = [field.name if _is_plain(field.type) else "" for field in schema]
    return [name if plain.count(name) == 1 else "" for name in plain]


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether values of a type are texts or numbers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
    )
    return any(test(kind) for test in tests)
