"""What a pipeline's command leaves on standard output, on standard error, and as its exit code."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import cli
from cli import pipeline
from imago.config import Config
from stack import register


def _main(monkeypatch: pytest.MonkeyPatch, run: Any, *options: str) -> int:
    monkeypatch.setattr(cli, "_environment", lambda _: None)
    monkeypatch.setattr(pipeline, "_run", run)
    monkeypatch.setattr(sys, "argv", ["run.py", "--pipeline", "training", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_model_that_had_to_be_promoted_and_was_not_exits_with_4_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = {"pipeline": "training", "status": "completed", "promoted": False, "reason": "Worse than the champion."}
    assert _main(monkeypatch, lambda *_, **__: outcome, "--json", "--require-promotion") == 4
    said = capfd.readouterr()
    assert json.loads(said.out) == outcome
    assert said.err == "error: Not promoted: Worse than the champion.\n"


def test_an_error_that_nobody_foresaw_is_one_line_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by\nzero")

    assert _main(monkeypatch, fail, "--json") == 1
    said = capfd.readouterr()
    assert json.loads(said.out)["exit_code"] == 1
    assert said.err.startswith("error: ZeroDivisionError: division by zero")
    assert said.err.count("\n") == 1


def test_containers_are_given_paths_without_links_or_steps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "moths").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "work")
    config = Config.model_validate({"data": {"source": "../link/moths"}, "model": {"weights": "hub"}})
    whole = pipeline._absolute(config)
    assert whole.data.source == str(tmp_path / "data" / "moths")
    assert whole.model.weights == "hub"
    mounted = register.mounts(config)
    assert mounted[str(tmp_path / "data" / "moths")] == {"bind": str(tmp_path / "data" / "moths"), "mode": "ro"}
