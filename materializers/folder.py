"""Folders in an artifact store: whole or not there.

Every file is listed with its size and sha256 in `complete.json`, which is written last. A folder without it, or that
does not agree with it, was not written to its end and is not read.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError
from zenml.io import fileio

from imago.errors import ImagoError

MARKER = "complete.json"
CHUNK = 1 << 20


class Entry(BaseModel):
    """What is known of a stored file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int  # bytes
    sha256: str


class _Marker(BaseModel):
    files: dict[str, Entry]


def save_folder(local_dir: Path | str, uri: str) -> None:
    """Copy a local folder's files into an artifact store, the marker last. Raises ImagoError and leaves nothing."""
    root = Path(local_dir)
    with _whole_or_nothing(uri):
        _write_marker({name: _store(path, f"{uri}/{name}") for name, path in _files(root).items()}, uri)


@contextmanager
def new_folder(uri: str) -> Iterator[Path]:
    """Give a local folder whose files are stored at the end of the block: the place itself in a local store.

    Raises ImagoError where they cannot be, and leaves nothing.
    """
    if _is_remote(uri):
        with TemporaryDirectory(prefix="imago-") as folder:
            yield Path(folder)
            save_folder(folder, uri)
        return
    with _whole_or_nothing(uri):
        yield Path(uri)
        _write_marker({name: _seal(path) for name, path in _files(Path(uri)).items()}, uri)


def load_folder(uri: str, local_dir: Path | str) -> Path:
    """Copy a stored folder into a local one, checking every byte. Raises ImagoError where it is not whole."""
    target = Path(local_dir)
    target.mkdir(parents=True, exist_ok=True)
    for name, entry in _read_marker(uri).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            with fileio.open(f"{uri}/{name}", "rb") as source, partial.open("wb") as sink:
                found = _copy(source, sink)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ImagoError(f"{name} of {uri} could not be copied to {target}: {error}") from error
        if found != entry:
            partial.unlink()
            raise ImagoError(f"{name} of {uri} is not what was stored there: run the step that made it again.")
        partial.replace(path)
    return target


def open_folder(uri: str, cache_dir: Path | str) -> Path:
    """Return a stored folder where it lies if the store is local, else a copy of it in `cache_dir`.

    In place the sizes are checked, not every byte. Raises ImagoError where it is not whole.
    """
    if _is_remote(uri):
        return load_folder(uri, cache_dir)
    root = Path(uri)
    for name, entry in _read_marker(uri).items():
        path = root / name
        if not path.is_file() or path.stat().st_size != entry.size:
            raise ImagoError(f"{name} of {uri} is not what was stored there: run the step that made it again.")
    return root


def write_file(uri: str, content: bytes) -> None:
    """Write one file into an artifact store under a temporary name, then rename it."""
    if _is_remote(uri):
        with fileio.open(uri, "wb") as sink:
            sink.write(content)
        return
    partial = f"{uri}.{uuid4().hex[:8]}"
    try:
        with fileio.open(partial, "wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        Path(partial).replace(uri)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


@contextmanager
def _whole_or_nothing(uri: str) -> Iterator[None]:
    try:
        fileio.makedirs(uri)
        if fileio.exists(f"{uri}/{MARKER}"):
            fileio.remove(f"{uri}/{MARKER}")
        yield
    except OSError as error:
        _discard(uri)
        raise ImagoError(
            f"{uri} could not be written: {error.strerror or error}. Nothing of it is kept; free some space there or "
            "mend its permissions, and run again."
        ) from error
    except BaseException:
        _discard(uri)
        raise


def _files(root: Path) -> dict[str, Path]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    if not files:
        raise ImagoError(f"There is nothing in {root} to be stored.")
    return {path.relative_to(root).as_posix(): path for path in files}


def _seal(path: Path) -> Entry:
    with path.open("rb") as source:
        os.fsync(source.fileno())
        return Entry(size=path.stat().st_size, sha256=hashlib.file_digest(source, "sha256").hexdigest())


def _store(path: Path, target: str) -> Entry:
    fileio.makedirs(str(PurePosixPath(target).parent) if not _is_remote(target) else target.rpartition("/")[0])
    if not _is_remote(target):
        with suppress(OSError):  # another disk, or no links there
            os.link(path, target)  # what is stored is never written to again: two stored folders may share a file
            return _seal(Path(target))
    with path.open("rb") as source, fileio.open(target, "wb") as sink:
        entry = _copy(source, sink)
        if not _is_remote(target):
            sink.flush()
            os.fsync(sink.fileno())
    return entry


def _copy(source: IO[bytes], sink: IO[bytes]) -> Entry:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        sink.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return Entry(size=size, sha256=digest.hexdigest())


def _write_marker(entries: Mapping[str, Entry], uri: str) -> None:
    write_file(f"{uri}/{MARKER}", _Marker(files=dict(entries)).model_dump_json(indent=1).encode())


def _read_marker(uri: str) -> dict[str, Entry]:
    marker = f"{uri}/{MARKER}"
    if not fileio.exists(marker):
        raise ImagoError(f"{uri} was not written to its end (it has no {MARKER}): run the step that made it again.")
    try:
        with fileio.open(marker, "rb") as source:
            entries = _Marker.model_validate_json(source.read()).files
    except ValidationError as error:
        raise ImagoError(f"{marker} cannot be read: run the step that made it again.") from error
    for name in entries:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise ImagoError(f"{marker} names a file outside its folder: '{name}'.")
    return entries


def _discard(uri: str) -> None:
    if _is_remote(uri):
        return
    shutil.rmtree(uri, ignore_errors=True)


def _is_remote(uri: str) -> bool:
    return "://" in uri
