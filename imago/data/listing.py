"""What a source holds before any picture is read: a row a picture, and a sentence on how the source was understood."""

import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imago.data.dataset import Split
from imago.errors import DataRefused

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
"""What makes a file one of the pictures of a source, in lower case; whether it can be decoded is seen later."""

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)  # there may be millions
class Row:
    """A picture that a source names. `read` gives its bytes, or none where its file is missing or too large.

    `attributes` is a JSON object of what else the source says of it.
    """

    id: str
    label: str
    split: Split | None
    read: Callable[[], bytes]
    attributes: str | None = None


@dataclass(frozen=True)
class Listing:
    """The pictures of a source, and a sentence on which layout was recognised and why."""

    rows: list[Row]
    origin: str


def split_named(name: str) -> Split | None:
    """Return the split that a folder's or a column's word stands for, in any case."""
    return SPLIT_NAMES.get(name.strip().casefold())


def is_picture(name: str) -> bool:
    """Tell whether a file's name ends as a picture's does."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def read_file(path: str | Path) -> bytes:
    """Return a file's bytes, or none where it cannot be read, is not a plain file, or is larger than 64 MiB.

    A row without bytes is for validation to quarantine with its reason: one bad file does not stop the reading.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return b""
        return Path(path).read_bytes()
    except (OSError, ValueError):
        return b""


def is_plain_file(path: Path) -> bool:
    """Tell whether there is a file, also for names that the file system does not take."""
    try:
        return path.is_file()
    except OSError:
        return False


def readable_name(name: str) -> str:
    """Return a file's name as text, its bytes that are not UTF-8 written as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def class_named(name: str, where: str) -> str:
    """Return a class's name as it is. Raises DataRefused where it is empty or not UTF-8."""
    if not name.strip():
        raise DataRefused(f"A class in {where} has an empty name: name it.")
    if name != readable_name(name):
        raise DataRefused(f"The class '{readable_name(name)}' in {where} has a name that is not UTF-8: rename it.")
    return name


def ignored(names: Iterable[str], what: str) -> str:
    """Return a sentence such as ` Ignored 3 files that are no pictures (.csv, .txt).`, or nothing for no names."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without extension" for name in names)
    if not kinds:
        return ""
    return f" Ignored {kinds.total()} {what} ({', '.join(sorted(map(readable_name, kinds)))})."
