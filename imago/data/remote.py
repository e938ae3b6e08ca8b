"""Sources that lie elsewhere, brought to this machine first: fsspec addresses such as `s3://…`, and Kaggle handles."""

import hashlib
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from filelock import FileLock

from imago.data.listing import EXTENSIONS, MAX_FILE_BYTES
from imago.data.manifest import SUFFIXES, holds_pictures, read_manifest
from imago.errors import ConfigError, DataRefused

_TABLES = {*SUFFIXES, ".json", ".arrow"}
_WANTED = EXTENSIONS | _TABLES
_SECRET = ("sig", "token", "key", "secret", "password", "credential")
_MARKS_OF_A_VERSION = (
    "size",
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
    "Last-Modified",
    "Content-MD5",
    "Digest",
)
_KEPT = 2  # versions of a source
_ASKED = 16  # files of which the store is asked more at once
_RAISED = (OSError, ValueError, EOFError, RuntimeError)  # the last by zipfile, for one with a password


def refuse_secrets(source: str) -> None:
    """Raise ConfigError for an address with a password or a signature in it: addresses are kept and shown."""
    for part in source.split("::"):
        address = urlsplit(part)
        names = {name.lower() for name, _ in parse_qsl(address.query)}
        token = address.password or (address.username and address.scheme in {"http", "https"})
        if token or any(word in name for name in names for word in _SECRET):
            raise ConfigError(
                f"The address of the data on {address.hostname or 'that host'} holds a password or a key, and "
                "addresses are kept with every run: leave it out, and give it as the store's own client reads it "
                "(AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, ~/.ssh, a configuration of fsspec)."
            )


def is_remote(source: str) -> bool:
    """Tell whether a source is an address that fsspec resolves, and not that of a file here."""
    return ("://" in source or "::" in source) and not source.startswith("file://")


def fetch(uri: str, cache: Path) -> Path:
    """Bring a folder or a manifest with its pictures into the cache and return where it lies there.

    Each version of the source has a folder of its own, which appears whole or not at all; a version that is there is
    not fetched again, and one that broke off goes on where it did. Of two processes one fetches, the other waits.
    Raises ConfigError where the address cannot be read or the disk does not take it, DataRefused for a picture that is
    too large; both before anything is fetched but a manifest, which says what belongs to the source.
    """
    remote = _look(uri)
    place = cache / hashlib.sha256(uri.encode()).hexdigest()[:16] / remote.state
    entry = place / remote.manifest if remote.manifest else place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        partial = place.with_name(f".partial-{place.name}")
        if place.exists():
            if not _broken(remote, place, uri):
                return entry
            shutil.rmtree(partial, ignore_errors=True)
            place.rename(partial)  # somebody has taken files out of it
        if remote.manifest:
            _download(remote, [remote.manifest], partial, uri)
        _download(remote, _names(remote, partial, uri), partial, uri)
        partial.rename(place)
        for old in sorted(place.parent.glob("[!.]*/"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return entry


def state(uri: str) -> str:
    """Return a digest of what the address lists: names, sizes, checksums or times."""
    return _look(uri).state


def fetch_kaggle(handle: str) -> Path:
    """Download a Kaggle data set, `owner/name`, through kagglehub and return its folder. Raises ConfigError."""
    if not re.fullmatch(r"[\w-]+/[\w-]+(/versions/\d+)?", handle):
        raise ConfigError(f"'kaggle:{handle}' is not of the form kaggle:owner/name.")
    try:
        import kagglehub
    except ImportError as error:
        raise ConfigError(
            "Kaggle data sets need kagglehub: run `pip install '.[kaggle]'`, or download it and give its folder."
        ) from error
    try:
        return Path(kagglehub.dataset_download(handle))
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The Kaggle data set '{handle}' cannot be downloaded: {reason}") from error


@dataclass(frozen=True)
class _Remote:
    filesystem: Any
    base: str
    files: dict[str, str]  # what makes this version of it, by path relative to the base
    sizes: dict[str, int | None]  # bytes, where the store tells
    manifest: str | None

    @property
    def state(self) -> str:
        return hashlib.sha256(repr((self.manifest, sorted(self.files.items()))).encode()).hexdigest()[:16]


def _look(uri: str) -> _Remote:
    import fsspec

    with _saying(f"{uri} cannot be read"):
        filesystem, path = fsspec.core.url_to_fs(uri)
        manifest = None
        if path.lower().endswith(SUFFIXES) and filesystem.isfile(path):
            path, _, manifest = path.rpartition("/")
        found = filesystem.find(path, detail=True)
    root = filesystem._strip_protocol(path).rstrip("/")
    base = f"{root}/" if root or any(name.startswith("/") for name in found) else ""
    names = [
        name[len(base) :]
        for name in found
        if name.startswith(base) and _wanted(name[len(base) :], any_name=manifest is not None)
    ]
    if not found:
        raise ConfigError(f"There is nothing at {uri}: check the address and who may read it.")
    if not names:
        raise DataRefused(f"There are no pictures at {uri} ({len(found)} other files).")
    with _saying(f"{uri} cannot be read"), ThreadPoolExecutor(_ASKED) as pool:
        told = dict(zip(names, pool.map(lambda name: _told(filesystem, found[base + name]), names), strict=True))
    files = {name: repr([info.get(mark) for mark in _MARKS_OF_A_VERSION]) for name, info in told.items()}
    sizes = {name: info.get("size") for name, info in told.items()}
    return _Remote(filesystem, base, files, sizes, manifest)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn what a store's client raises into a ConfigError: each has errors of its own, with no common parent.

    Of Python's own errors only those count that clients raise over an address or an answer; others are defects.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what}: it needs a package that is not installed: {error}") from error
    except Exception as error:
        if type(error).__module__ == "builtins" and not isinstance(error, _RAISED):
            raise
        raise ConfigError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _told(filesystem: Any, listed: dict[str, Any]) -> dict[str, Any]:
    """Return what the store says of a file; over HTTP a listing gives its name alone."""
    told: dict[str, Any] = listed if listed.get("size") is not None else filesystem.info(listed["name"])
    return told


def _wanted(name: str, *, any_name: bool) -> bool:
    parts = name.split("/")
    hidden = any(not part or part.startswith(".") for part in parts)
    return not hidden and "\0" not in name and (any_name or Path(name).suffix.lower() in _WANTED)


def _names(remote: _Remote, folder: Path, uri: str) -> list[str]:
    """Return the names of the files that belong to the source, its manifest being in the folder already."""
    if not remote.manifest:
        return list(remote.files)
    table = folder / remote.manifest
    named = set() if holds_pictures(table) else {row.path for row in read_manifest(table, uri)}
    return [name for name in remote.files if name in named]


def _broken(remote: _Remote, folder: Path, uri: str) -> list[str]:
    """Return the names of the files that are not there whole."""
    if remote.manifest and not _is_whole(folder / remote.manifest, remote.sizes[remote.manifest], unknown=True):
        return [remote.manifest]
    return [
        name for name in _names(remote, folder, uri) if not _is_whole(folder / name, remote.sizes[name], unknown=True)
    ]


def _download(remote: _Remote, names: list[str], folder: Path, uri: str) -> None:
    """Fetch what is not there whole."""
    names = [name for name in names if not _is_whole(folder / name, remote.sizes[name])]
    if not names:
        return
    _check_sizes(remote, names, folder, uri)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with _saying(f"{uri} cannot be fetched"):
        remote.filesystem.get([remote.base + name for name in names], [str(folder / name) for name in names])
    broken = [name for name in names if not _is_whole(folder / name, remote.sizes[name], unknown=True)]
    if broken:
        raise ConfigError(f"{uri} cannot be fetched: {broken[0]} did not come whole; run it again to go on.")


def _check_sizes(remote: _Remote, names: list[str], folder: Path, uri: str) -> None:
    """Raise DataRefused for a picture that would not be read, ConfigError for more than the disk takes."""
    sizes = {name: remote.sizes[name] or 0 for name in names}
    left_at = "No more was fetched" if folder.exists() else "Nothing was fetched"  # a manifest, or some in another run
    pictures = [name for name in names if Path(name).suffix.lower() not in _TABLES]
    largest = max(pictures, key=sizes.__getitem__, default=None)
    if largest and sizes[largest] > MAX_FILE_BYTES:
        raise DataRefused(
            f"{largest} at {uri} has {sizes[largest]:,} bytes, and a picture may have {MAX_FILE_BYTES:,}: make it "
            f"smaller there, or take it away. {left_at}."
        )
    total, free = sum(sizes.values()), shutil.disk_usage(folder.parent).free
    if total > free:
        raise ConfigError(
            f"{uri} has {total:,} bytes to fetch, and {folder.parent} has room for {free:,}: make room, set IMAGO_HOME "
            f"to another disk, or give an address with fewer pictures. {left_at}."
        )


def _is_whole(path: Path, size: int | None, *, unknown: bool = False) -> bool:
    """Tell whether a file is there with all its bytes; `unknown` is the answer where it is not known how many."""
    if not path.is_file():
        return False
    return unknown if size is None else path.stat().st_size == size
