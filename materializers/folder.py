"""Folders in an artifact store: whole or not there.

Every file is listed with its size and sha256 in `complete.json`, which is written last. A folder without it, or that
does not agree with it, was not written to its end and is not read.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import uuid4

from zenml.io import fileio

from imago.errors import ImagoError

MARKER = "complete.json"
CHUNK = 1 << 20


def save_folder(local_dir: Path | str, uri: str) -> None:
    """Copy a local folder's files into an artifact store, the marker last. Raises ImagoError and leaves nothing."""
    root = Path(local_dir)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    if not files:
        raise ImagoError(f"There is nothing in {root} to be stored.")
    try:
        fileio.makedirs(uri)
        if fileio.exists(f"{uri}/{MARKER}"):
            fileio.remove(f"{uri}/{MARKER}")
        entries = {path.relative_to(root).as_posix(): path for path in files}
        _write_marker({name: _store(path, f"{uri}/{name}") for name, path in entries.items()}, uri)
    except OSError as error:
        _discard(uri)
        raise ImagoError(
            f"{uri} could not be written: {error.strerror or error}. Nothing of it is kept; free some space there or "
            "mend its permissions, and run again."
        ) from error


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
        except (OSError, KeyError) as error:
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
        if not path.is_file() or path.stat().st_size != entry["size"]:
            raise ImagoError(f"{name} of {uri} is not what was stored there: run the step that made it again.")
    return root


def content_hash(uri: str) -> str:
    """Return a digest of a stored folder's files, their names and bytes. Raises ImagoError where it is not whole."""
    return hashlib.sha256(json.dumps(_read_marker(uri), sort_keys=True).encode()).hexdigest()


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


def _store(path: Path, target: str) -> dict[str, Any]:
    fileio.makedirs(str(PurePosixPath(target).parent) if not _is_remote(target) else target.rpartition("/")[0])
    with path.open("rb") as source, fileio.open(target, "wb") as sink:
        entry = _copy(source, sink)
        if not _is_remote(target):
            sink.flush()
            os.fsync(sink.fileno())
    return entry


def _copy(source: IO[bytes], sink: IO[bytes]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        sink.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


def _write_marker(entries: Mapping[str, dict[str, Any]], uri: str) -> None:
    write_file(f"{uri}/{MARKER}", json.dumps({"files": entries}, indent=1, sort_keys=True).encode())


def _read_marker(uri: str) -> dict[str, dict[str, Any]]:
    marker = f"{uri}/{MARKER}"
    if not fileio.exists(marker):
        raise ImagoError(f"{uri} was not written to its end (it has no {MARKER}): run the step that made it again.")
    try:
        with fileio.open(marker, "rb") as source:
            entries: dict[str, dict[str, Any]] = json.loads(source.read())["files"]
    except (ValueError, KeyError, TypeError) as error:
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
