"""Where things are kept, and that a report is whole or the one before."""

from pathlib import Path

import pytest

from imago import home


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_REPORTS", str(tmp_path))
    assert home.write_report("data.html", "first") == tmp_path / "data.html"

    def full(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text[:3].encode())
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        home.write_report("data.html", "second")
    assert (tmp_path / "data.html").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["data.html"]
