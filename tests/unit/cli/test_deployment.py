"""What `run.py deployment` says of what was served."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from cli.deployment import deployment as commands
from imago.config import DeployConfig
from imago.monitoring.prediction_store import PredictionStore, timestamp
from imago.serving import deployment
from imago.serving.deployment import Process, Shadow, State, Version
from tests.workspace import free_port

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


def test_why_it_was_stopped_is_kept_and_told(tmp_path: Path) -> None:
    config = DeployConfig(port=free_port())
    with subprocess.Popen(["sleep", "60"]) as child:
        created = psutil.Process(child.pid).create_time()
        process = gone(tmp_path).model_copy(update={"pid": child.pid, "created": created})
        deployment.write("moths", State(current=CURRENT.model_copy(update={"process": process, "config": config})))
        assert f"Processes: {child.pid}" in run("status")
        run("stop", "--reason", "moving house")
    assert run("history").splitlines()[-2:] == ["    by run.py deployment stop", "    because: moving house"]
    assert "Why: stopped by run.py deployment stop (moving house)." in run("status")


def test_stopping_what_has_ended_by_itself_hides_not_why(tmp_path: Path) -> None:
    config = DeployConfig(port=free_port())
    served = CURRENT.model_copy(update={"process": gone(tmp_path), "config": config})
    deployment.write("moths", State(current=served).with_event("deployed", CURRENT.tag))
    assert "Why: its server process 4194305 was killed." in run("stop")
    assert "Why: its server process 4194305 was killed." in run("status")
    assert [entry["action"] for entry in json.loads(run("history", "--json"))["history"]] == ["deployed", "ended"]


def test_a_start_that_failed_is_told() -> None:
    state = State(current=CURRENT).with_event("stopped", CURRENT.tag, by="run.py deployment stop")
    failure = "moths:2-0123abcd was not deployed, nothing is served: it says it is moths:1."
    deployment.write("moths", state.with_event("failed", CURRENT.tag, failure, time="2026-01-02T00:00:00Z"))
    assert f"Why: {failure}" in run("status")
    assert run("history").splitlines()[-2:] == [
        "2026-01-02T00:00:00Z  moths:2-0123abcd  failed",
        f"    {failure}",
    ]


def test_a_start_that_failed_after_a_crash_is_told_as_well(tmp_path: Path) -> None:
    state = State(current=CURRENT.model_copy(update={"process": gone(tmp_path)}))
    state = state.with_event("deployed", CURRENT.tag).with_event("ended", CURRENT.tag, "the machine was started anew")
    deployment.write("moths", state.with_event("failed", CURRENT.tag, "Port 3000 is used by another program."))
    assert "Why: Port 3000 is used by another program." in run("status")


def test_the_end_of_a_log_of_json_is_not_full_of_what_was_answered(tmp_path: Path) -> None:
    said = '{"level": "ERROR", "logger": "imago.endpoint", "message": "out of luck", "request_id": null}'
    asked = '{"level": "INFO", "logger": "imago.access", "message": "GET /livez 200", "request_id": "0"}'
    (tmp_path / "server.log").write_text("\n".join([said, *[asked] * 1000]), encoding="utf-8")
    deployment.write("moths", State(current=CURRENT.model_copy(update={"process": gone(tmp_path)})))
    assert json.loads(run("status", "--json"))["log"] == [said]


@pytest.mark.parametrize("arguments", [["--reason", "why not"], ["3", "--stop"], ["--share", "0.5"]])
def test_what_is_to_become_of_which_shadow_has_to_be_said(arguments: list[str]) -> None:
    assert CliRunner().invoke(commands, ["shadow", *arguments]).exit_code == 2


def gone(folder: Path) -> Process:
    return Process(pid=2**22 + 1, created=4e9, control=str(folder / "control"), folder=str(folder))


def shadowed(folder: Path) -> State:
    """What is known where version 3 shadowed version 2, and both are gone."""
    shadow = Shadow(tag="moths:3-0123abcd", share=0.25, since="2026-01-03T00:00:00+00:00", process=gone(folder))
    return State(current=CURRENT.model_copy(update={"process": gone(folder)}), shadow=shadow)


def keep(folder: Path, answers: list[tuple[str, str | None, str | None]]) -> None:
    """Keep what version 2 answered, what version 3 said of it, and the true label."""
    store, noon = PredictionStore(folder / "home" / "predictions.sqlite"), datetime(2026, 1, 3, tzinfo=UTC)
    predictions, shadows = [], []
    for number, (label, theirs, truth) in enumerate(answers):
        told = {"prediction_id": f"id-{number}", "time": timestamp(noon + timedelta(seconds=number))}
        given = {"model": "moths", "version": "2", "label": label, "probability": 0.9, "rejected": number == 0}
        predictions.append(told | given | {"feedback": truth})
        said = {"label": theirs, "probability": 0.8, "rejected": 0, "seconds": 0.005} if theirs else {}
        failure = {} if theirs else {"failure": "refused"}
        shadows.append(told | {"version": "3", "champion_seconds": 0.01} | said | failure)
    store.add(predictions)
    store.add_shadows(shadows)


def test_a_shadow_is_compared_with_the_version_that_serves_its_verdict_first(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    keep(tmp_path, [("luna", "luna", None)] * 194 + [("luna", "atlas", "atlas")] * 6)
    assert run("shadow").splitlines() == [
        "Version 3 is better than version 2: of 6 pictures whose true label is known it names 6 right, version 2 0 "
        "(p = 0.031).",
        "Both say the same of 97.0% of 200 pictures (93.6%–98.6%).",
        "  Of 200 that version 2 calls luna, it calls 6 otherwise, 6 of them atlas",
        "Not sure enough: version 3 of 0.0%, version 2 of 0.5%.",
        "Median of a picture, on one core: version 3 5.0 ms, version 2 10.0 ms.",
        "In its shadow, and not running: version 3 (its server process 4194305 was killed); "
        "`python run.py deployment shadow --stop` ends it",
    ]
    told = json.loads(run("shadow", "--json"))
    assert (told["name"], told["champion"], told["challenger"]) == ("moths", "2", "3")
    assert (told["shadow"]["running"], told["shadow"]["share"]) == (False, 0.25)
    assert (told["comparison"]["verdict"], told["comparison"]["mirrored"]) == ("shadow_better", 200)
    assert told["comparison"]["p_value"] == pytest.approx(2 * 0.5**6)


def test_a_shadow_that_gives_no_answers_does_not_do(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    keep(tmp_path, [("luna", "luna", "luna")] * 9 + [("luna", None, None)])
    assert run("shadow").splitlines()[:2] == [
        "Version 3 does not do: it gave no answer to 1 of 10 pictures (1 refused).",
        "Of those that it answered, of 9 pictures whose true label is known it names 9 right, version 2 9 (p = 1).",
    ]


def test_a_shadow_that_failed_for_a_while_is_judged_by_its_answers_again_and_it_is_said(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    keep(tmp_path, [("luna", None, None)] * 61 + [("luna", "luna", None)] * 290)
    assert run("shadow").splitlines()[0] == (
        "Version 3 does not do: it gave no answer to 61 of 351 pictures (61 refused), the last at 2026-01-03 00:01 "
        "UTC; to 10 of the last 300."
    )
    keep(tmp_path, [("luna", None, None)] * 61 + [("luna", "luna", None)] * 320)
    lines = run("shadow").splitlines()
    assert lines[0] == "Undecided between versions 3 and 2: nobody has told a true label (`/feedback`)."
    assert lines[-2] == (
        "No answer to 61 of 381 pictures (61 refused), the last at 2026-01-03 00:01 UTC; to 0 of the last 300."
    )
    told = json.loads(run("shadow", "--json"))["comparison"]
    assert (told["failures"], told["recent"], told["recent_failures"]) == ({"refused": 61}, 300, 0)
    assert told["last_failure"] == "2026-01-03T00:01:00.000000+00:00"


def test_what_was_a_shadow_last_can_still_be_compared(tmp_path: Path) -> None:
    deployment.write("moths", State(current=CURRENT))
    assert run("shadow").startswith("No version was ever a shadow of 'moths'")
    assert json.loads(run("shadow", "--json")) == {
        "name": "moths",
        "champion": None,
        "challenger": None,
        "shadow": None,
        "comparison": None,
    }
    keep(tmp_path, [("luna", "luna", "luna")])
    lines = run("shadow").splitlines()
    assert lines[0].startswith("Undecided between versions 3 and 2: of 1 pictures whose true label is known it names 1")
    assert lines[-1] == "It is no shadow any more."


def test_a_shadow_that_was_asked_nothing_yet_says_so(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    first, second = run("shadow").splitlines()
    assert first == "Version 3 has been asked nothing yet that version 2 was asked."
    assert second.startswith("In its shadow, and not running")


def test_status_shows_the_shadow(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    assert "In its shadow, and not running: version 3" in run("status")
    assert json.loads(run("status", "--json"))["shadow"] == {
        "running": False,
        "model": {"name": "moths", "version": "3"},
        "share": 0.25,
        "since": "2026-01-03T00:00:00+00:00",
        "pids": [],
        "reason": "its server process 4194305 was killed",
    }


def test_the_end_of_a_shadow_that_is_gone_is_noted(tmp_path: Path) -> None:
    deployment.write("moths", shadowed(tmp_path))
    assert json.loads(run("shadow", "--stop", "--json"))["shadow"] is None
    assert deployment.read("moths").shadow is None
    assert [event.action for event in deployment.read("moths").history] == ["ended", "shadow ended"]


@pytest.mark.parametrize(
    "arguments", [("3", "--stop"), ("--share", "0.5"), ("3", "--share", "0"), ("3", "--share", "2")]
)
def test_what_makes_no_sense_of_a_shadow_is_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(commands, ["shadow", *arguments]).exit_code == 2
