"""What `run.py deployment` says of what was served."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.deployment import deployment as commands
from imago.config import DeployConfig
from imago.serving import deployment
from imago.serving.deployment import State, Version

CURRENT = Version(tag="moths:2-0123abcd", config=DeployConfig(), since="2026-01-02T00:00:00+00:00")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))


def run(*arguments: str) -> str:
    return CliRunner().invoke(commands, [*arguments], catch_exceptions=False).stdout


def test_history_tells_who_deployed_a_version_why_and_how_it_ended() -> None:
    state = State(current=CURRENT)
    state = state.with_event(
        "deployed", "moths:1-0123abcd", by="training run 1", reason="First of its name.", time="2026-01-01T00:00:00Z"
    )
    state = state.with_event(
        "deployed", "moths:2-0123abcd", "in place of moths:1-0123abcd", time="2026-01-02T00:00:00Z"
    )
    deployment.write("moths", state)
    assert run("history").splitlines() == [
        "2026-01-01T00:00:00Z  moths:1-0123abcd  deployed: replaced at 2026-01-02T00:00:00Z, by moths:2-0123abcd",
        "    by training run 1",
        "    because: First of its name.",
        "2026-01-02T00:00:00Z  moths:2-0123abcd  deployed: serving",
        "    in place of moths:1-0123abcd",
    ]
    first, second = json.loads(run("history", "--json"))["history"]
    assert first == {
        "time": "2026-01-01T00:00:00Z",
        "action": "deployed",
        "tag": "moths:1-0123abcd",
        "detail": "",
        "by": "training run 1",
        "reason": "First of its name.",
        "version": "1",
        "outcome": "replaced",
        "until": "2026-01-02T00:00:00Z",
        "ending": "by moths:2-0123abcd",
    }
    assert (second["version"], second["outcome"], second["until"]) == ("2", "serving", None)


def test_a_history_of_nothing_is_no_error() -> None:
    assert run("history") == "Nothing was ever deployed.\n"
    assert json.loads(run("history", "--json")) == {"name": None, "history": []}
