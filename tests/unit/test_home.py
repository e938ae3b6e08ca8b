"""Where things are kept, and that a report is whole or the one before."""

import subprocess
import sys
from pathlib import Path

import pytest

from imago import home
from imago.errors import ConfigError


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


def test_a_report_in_a_folder_has_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_REPORTS", str(tmp_path))
    path = home.write_report("figures/moths-1-curves.svg", "<svg/>")
    assert path == tmp_path / "figures" / "moths-1-curves.svg"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    (tmp_path / "maps").write_text("in the way", encoding="utf-8")
    with pytest.raises(ConfigError, match="maps is a file"):
        home.write_report("maps/moths.svg", "<svg/>")


def test_a_home_that_cannot_be_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "file"))
    assert home.place("IMAGO_HOME") == tmp_path / "file"
    for use in (home.home, home.require_writable):
        with pytest.raises(ConfigError, match="set IMAGO_HOME to another folder"):
            use()


def test_one_process_at_a_time_is_at_work_in_a_folder(tmp_path: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from imago import home\nwith home.alone_in(Path(sys.argv[1])): pass"
    )
    other = [sys.executable, "-c", command, str(tmp_path)]
    with home.alone_in(tmp_path):
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "ConfigError: The very same is under way in another process" in refused.stderr
    assert subprocess.run(other, check=False).returncode == 0


def test_a_run_clears_only_the_work_that_it_has_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path))
    done, going_on, of_another = (home.place_for("training", key, keep=4) for key in ("a", "b", "c"))
    sweep = home.place_for("sweeps", "d", keep=4)
    for folder, run in ((done, "one"), (of_another, "two"), (sweep, "one")):
        home.mark_done(folder, run)
    home.clear_done("training", "one")
    assert not done.exists()
    assert all(folder.exists() for folder in (going_on, of_another, sweep))


def test_work_that_is_gone_on_with_is_not_done_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path))
    folder = home.place_for("training", "a", keep=4)
    with home.alone_in(folder):
        home.mark_done(folder, "one")
        home.clear_done("training", "one")
        assert folder.exists()  # for somebody is at work in it
    with home.alone_in(folder):
        pass
    home.clear_done("training", "one")
    assert folder.exists()
