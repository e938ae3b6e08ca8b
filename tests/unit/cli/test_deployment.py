"""What `run.py deployment` says of what was served."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.deployment import deployment as commands
from imago.config import DeployConfig
from imago.serving import deployment
from imago.serving.deployment import Process, State, Version

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


def test_status_says_why_nothing_is_served_and_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("worker 8 ended with exit code 3\n", encoding="utf-8")
    told = {"time": "2026-01-02T00:00:05+00:00", "reason": "its workers ended 5 times within 9 s, last by SIGKILL"}
    (tmp_path / "ended.json").write_text(json.dumps(told), encoding="utf-8")
    gone = Process(pid=2**22 + 1, created=0.0, control=str(tmp_path / "control"), folder=str(tmp_path))
    state = State(current=CURRENT.model_copy(update={"process": gone}))
    deployment.write("moths", state.with_event("deployed", CURRENT.tag))
    assert run("status").splitlines() == [
        "Not running. moths version 2 was served last: `python run.py deployment start --name moths` serves it again.",
        "Why: its workers ended 5 times within 9 s, last by SIGKILL.",
        "| worker 8 ended with exit code 3",
    ]
    status = json.loads(run("status", "--json"))
    assert (status["running"], status["endpoint"], status["pids"]) == (False, None, [])
    assert status["reason"] == told["reason"]
    assert status["log"] == ["worker 8 ended with exit code 3"]
    deployed, ended = json.loads(run("history", "--json"))["history"]
    assert (deployed["outcome"], deployed["until"], deployed["ending"]) == ("failed", told["time"], told["reason"])
    assert ended["action"] == "ended"


@pytest.mark.parametrize(("created", "reason"), [(0.0, "the machine was started anew"), (4e9, "was killed")])
def test_a_reboot_is_told_from_a_kill(tmp_path: Path, created: float, reason: str) -> None:
    gone = Process(pid=2**22 + 1, created=created, control=str(tmp_path / "control"), folder=str(tmp_path))
    deployment.write("moths", State(current=CURRENT.model_copy(update={"process": gone})))
    assert reason in run("status")


def test_status_says_who_stopped_it() -> None:
    state = State(current=CURRENT).with_event("stopped", CURRENT.tag, by="run.py deployment stop")
    deployment.write("moths", state)
    assert "Why: stopped by run.py deployment stop." in run("status")
