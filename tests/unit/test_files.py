"""What other processes read is whole, and what they remove is passed over."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imago.files import newest_first, replacing


def test_what_is_written_takes_the_place_of_what_was_there_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "made" / "figures.json"
    with replacing(path) as partial:
        partial.write_text("first", encoding="utf-8")
        assert not path.exists()
    with replacing(path) as partial:
        partial.write_text("second", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "first"
    assert path.read_text(encoding="utf-8") == "second"
    assert list(path.parent.iterdir()) == [path]


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("whole", encoding="utf-8")

    def break_off() -> None:
        with replacing(path) as partial:
            partial.write_text("ha", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        break_off()
    assert [(left, left.read_text(encoding="utf-8")) for left in tmp_path.iterdir()] == [(path, "whole")]


def test_the_newest_come_first_and_what_is_gone_not_at_all(tmp_path: Path) -> None:
    names = ["old", "gone", "new"]
    for age, name in zip((300, 200, 100), names, strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))

    def listed() -> Iterator[Path]:
        for name in names:
            if name == "gone":
                (tmp_path / name).unlink()  # by another process, between listing and looking
            yield tmp_path / name

    assert [path.name for path in newest_first(listed())] == ["new", "old"]
