"""A folder in an artifact store is whole or not there."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imago.errors import ImagoError
from materializers.folder import MARKER, load_folder, new_folder, open_folder, save_folder, write_file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "one.bin").write_bytes(bytes(range(256)) * 9000)
    (root / "deep" / "er" / "two.txt").write_text("two", encoding="utf-8")
    (root / "empty").write_bytes(b"")
    return root


@pytest.fixture
def stored(source: Path, tmp_path: Path) -> Path:
    save_folder(source, str(tmp_path / "stored"))
    return tmp_path / "stored"


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond this size, so that writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_folder_comes_back_as_it_was(source: Path, stored: Path, tmp_path: Path) -> None:
    loaded = load_folder(str(stored), tmp_path / "loaded")
    assert contents(loaded) == contents(source)
    assert open_folder(str(stored), tmp_path / "unused") == stored
    assert not (tmp_path / "unused").exists()


def test_a_folder_written_in_place_is_the_same(source: Path, tmp_path: Path) -> None:
    with new_folder(str(tmp_path / "new")) as root:
        for name, data in contents(source).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    assert contents(load_folder(str(tmp_path / "new"), tmp_path / "loaded")) == contents(source)


@pytest.mark.parametrize("read", [load_folder, open_folder])
def test_what_was_not_written_to_its_end_is_not_read(read: object, stored: Path, tmp_path: Path) -> None:
    (stored / MARKER).unlink()
    with pytest.raises(ImagoError, match="not written to its end"):
        read(str(stored), tmp_path / "loaded")  # type: ignore[operator]


@pytest.mark.parametrize("read", [load_folder, open_folder])
def test_a_file_cut_short_is_not_read(read: object, stored: Path, tmp_path: Path) -> None:
    (stored / "one.bin").write_bytes((stored / "one.bin").read_bytes()[:-1])
    with pytest.raises(ImagoError, match=r"one\.bin .* is not what was stored"):
        read(str(stored), tmp_path / "loaded")  # type: ignore[operator]


def test_a_changed_byte_is_not_copied(stored: Path, tmp_path: Path) -> None:
    data = bytearray((stored / "one.bin").read_bytes())
    data[1000] ^= 1
    (stored / "one.bin").write_bytes(data)
    with pytest.raises(ImagoError, match=r"one\.bin"):
        load_folder(str(stored), tmp_path / "loaded")
    assert not (tmp_path / "loaded" / "one.bin").exists()


def test_a_missing_file_is_named(stored: Path, tmp_path: Path) -> None:
    (stored / "empty").unlink()
    with pytest.raises(ImagoError, match="empty"):
        open_folder(str(stored), tmp_path)
    with pytest.raises(ImagoError, match="empty"):
        load_folder(str(stored), tmp_path / "loaded")


def test_a_full_disk_leaves_nothing_and_says_so(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_another_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "links do not cross disks")

    monkeypatch.setattr(os, "link", on_another_disk)
    uri = tmp_path / "stored"
    with disk_of(1_000_000), pytest.raises(ImagoError, match="could not be written") as error:
        save_folder(source, str(uri))
    assert "free some space" in str(error.value)
    assert not uri.exists()
    with disk_of(1_000_000), pytest.raises(ImagoError, match="could not be written"), new_folder(str(uri)) as root:
        (root / "big").write_bytes(b"0" * 2_000_000)
    assert not uri.exists()


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    uri = tmp_path / "stored"

    def fail() -> None:
        with new_folder(str(uri)) as root:
            (root / "half").write_bytes(b"half")
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert not uri.exists()


def test_writing_again_over_what_was_there_is_not_whole_before_its_end(stored: Path) -> None:
    with new_folder(str(stored)) as root:
        assert not (root / MARKER).exists()
        (root / "one.bin").write_bytes(b"new")
    assert (open_folder(str(stored), stored) / "one.bin").read_bytes() == b"new"


def test_an_empty_folder_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(ImagoError, match="nothing"):
        save_folder(tmp_path / "source", str(tmp_path / "stored"))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_marker_cannot_name_files_outside(name: str, stored: Path, tmp_path: Path) -> None:
    (stored / MARKER).write_text(json.dumps({"files": {name: {"size": 0, "sha256": ""}}}), encoding="utf-8")
    with pytest.raises(ImagoError, match="outside its folder"):
        load_folder(str(stored), tmp_path / "loaded")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}'])
def test_a_marker_that_cannot_be_read_is_no_marker(text: str, stored: Path, tmp_path: Path) -> None:
    (stored / MARKER).write_text(text, encoding="utf-8")
    with pytest.raises(ImagoError, match="cannot be read"):
        load_folder(str(stored), tmp_path / "loaded")


def test_one_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_file(str(path), b"before")
    with disk_of(1000), pytest.raises(OSError, match="too large"):
        write_file(str(path), b"0" * 5000)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
