"""A challenger beside the version that serves, by the real supervisor: whatever becomes of it, that one goes on."""

import os
import signal
import stat
from contextlib import suppress

import psutil
import pytest

from imago.errors import ConfigError, DeploymentFailed
from imago.serving import deployment, processes, shadow
from imago.serving.deployment import ShadowStatus
from tests.waiting import until


def begin(house, version: int = 2, share: float = 0.1) -> ShadowStatus:
    """Start a version in the shadow of the one that serves."""
    status = house.moths.start_shadow(f"moths:{version}", share)
    assert status.shadow is not None
    return status.shadow


def is_gone(pids: tuple[int, ...]) -> bool:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def test_a_shadow_runs_beside_the_version_that_serves_which_is_told_where(house):
    before = house.deploy(1)
    beside = begin(house)
    after = house.moths.status()
    assert (after.pids, after.model) == (before.pids, before.model)
    assert house.version() == "1"
    assert (beside.running, beside.model, beside.share) == (True, {"name": "moths", "version": "2"}, 0.1)
    assert len(beside.pids) == 2  # its supervisor and its worker
    assert set(beside.pids).isdisjoint(before.pids)
    assert psutil.Process(after.pids[1]).environ()["IMAGO_SHADOW"] == str(shadow.note_path("moths"))
    note = shadow.read_note("moths")
    assert note is not None
    assert (note.champion, note.version, note.share) == ("1", "2", 0.1)
    assert note.port == deployment.read("moths").shadow.process.port
    assert note.key not in (deployment.folder() / "moths.json").read_text()
    assert stat.S_IMODE(shadow.note_path("moths").stat().st_mode) == 0o600


def test_a_shadow_leaves_the_processor_to_others_and_keeps_shows_and_mirrors_nothing(house, monkeypatch):
    monkeypatch.setenv("IMAGO_RATE_LIMIT", "1")
    house.deploy(1, cors_origins=("https://moths.example",), reports=True)
    worker = psutil.Process(begin(house).pids[1])
    own = psutil.Process().nice()
    assert worker.nice() == min(own + shadow.NICENESS, 19)
    assert psutil.Process(house.moths.status().pids[1]).nice() == own
    environment, note = worker.environ(), shadow.read_note("moths")
    for name in ("PREDICTIONS", "SHADOW", "SHELF", "CORS_ORIGINS", "RATE_LIMIT", "KEYS", "PROBE_KEY"):
        assert environment[f"IMAGO_{name}"] == "", name
    assert note is not None
    assert environment["IMAGO_API_KEY"] == note.key


@pytest.mark.parametrize("how", ["deployed", "rolled back", "stopped", "ended by hand", "configured"])
def test_whatever_changes_what_serves_ends_its_shadow_whole(house, how):
    house.deploy(1)
    house.deploy(2)
    pids = begin(house, 3).pids
    match how:
        case "deployed":
            status = house.deploy(3)
        case "rolled back":
            status = house.moths.rollback()
        case "stopped":
            status = house.moths.stop()
        case "configured":
            status = house.deploy(2, top_k=1)
        case _:
            status = house.moths.stop_shadow()
    assert status.shadow is None
    assert is_gone(pids)
    assert not shadow.note_path("moths").exists()
    assert deployment.read("moths").leftover == ()
    (ended,) = [event for event in house.moths.history() if event.action == "shadow ended"]
    assert ended.tag == "moths:3"
    assert status.running == (how != "stopped")


def test_another_models_version_that_takes_the_port_over_ends_the_shadow(house):
    house.deploy(1)
    pids = begin(house).pids
    house.named("butterflies").deploy("butterflies:7", house.config)
    assert is_gone(pids)
    assert not shadow.note_path("moths").exists()


def test_a_deployment_that_fails_leaves_the_shadow_where_it_was(house):
    house.deploy(1)
    pids = begin(house).pids
    house.behaviour["moths:3"] = "wrong"
    with pytest.raises(DeploymentFailed):
        house.deploy(3)
    beside = house.moths.status().shadow
    assert (beside.running, beside.pids) == (True, pids)
    assert shadow.read_note("moths").version == "2"


def test_a_shadow_that_cannot_be_started_costs_the_version_that_serves_nothing(house, broken):
    before = house.deploy(1)
    house.behaviour["moths:2"], reason = broken
    with pytest.raises(DeploymentFailed) as failure:
        begin(house)
    assert str(failure.value).startswith(
        f"moths:2 does not shadow moths:1, which serves as before: {reason} (its log: "
    )
    after = house.moths.status()
    assert (after.running, after.pids, after.shadow) == (True, before.pids, None)
    assert deployment.read("moths").leftover == ()
    assert not shadow.note_path("moths").exists()
    assert [(entry.action, entry.outcome) for entry in house.moths.history()] == [
        ("deployed", "serving"),
        ("shadow failed", None),
    ]
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "moths:2" in " ".join(child.cmdline())]


def test_nothing_shadows_what_does_not_serve_nor_itself(house):
    with pytest.raises(ConfigError, match="nothing to shadow"):
        begin(house)
    house.deploy(1)
    with pytest.raises(ConfigError, match="does not shadow itself"):
        begin(house, 1)
    with pytest.raises(ConfigError, match="A share of 0 cannot"):
        begin(house, 2, 0)
    house.moths.stop()
    with pytest.raises(ConfigError, match="nothing to shadow"):
        begin(house)


def test_another_share_is_told_and_starts_nothing_anew(house):
    house.deploy(1)
    before, key = begin(house), shadow.read_note("moths").key
    after = begin(house, share=0.5)
    assert (after.pids, after.share) == (before.pids, 0.5)
    note = shadow.read_note("moths")
    assert (note.share, note.key) == (0.5, key)


def test_another_shadow_takes_the_place_of_the_first(house):
    house.deploy(1)
    first = begin(house, 2)
    second = begin(house, 3)
    assert is_gone(first.pids)
    assert second.model["version"] == "3"
    assert shadow.read_note("moths").version == "3"
    told = [(event.action, event.tag, event.detail) for event in house.moths.history()[1:]]
    assert told == [
        ("shadow started", "moths:2", "asked 10% of what moths:1 is asked"),
        ("shadow ended", "moths:2", "for moths:3"),
        ("shadow started", "moths:3", "asked 10% of what moths:1 is asked"),
    ]


def test_a_share_of_another_configuration_starts_nothing_anew(house):
    before = house.deploy(1)
    assert house.deploy(1, shadow=0.5).pids == before.pids


@pytest.mark.parametrize("command", ["stop", "stop_shadow", "start"])
def test_a_shadow_whose_supervisor_was_killed_is_told_and_cleared_away(house, monkeypatch, command):
    monkeypatch.setattr(processes, "ORPHANS_GRACE_SECONDS", 0.2)
    house.behaviour["moths:2"] = "stubborn"
    champion = house.deploy(1)
    beside = begin(house)
    os.kill(beside.pids[0], signal.SIGKILL)
    until(lambda: not processes.alive(deployment.read("moths").shadow.process), 15, "it is not gone")
    status = house.moths.status()
    assert (status.running, status.pids) == (True, champion.pids)
    assert (status.shadow.running, status.shadow.reason) == (False, f"its server process {beside.pids[0]} was killed")
    after = house.moths.stop() if command == "stop" else getattr(house.moths, command)()
    assert is_gone(beside.pids)
    assert after.running == (command != "stop")
    if command != "start":
        assert after.shadow is None
        assert not shadow.note_path("moths").exists()


def test_a_crash_loop_of_a_shadow_is_stopped_and_told_while_the_champion_serves(house, tmp_path):
    champion = house.deploy(1)
    house.behaviour["moths:2"] = f"mortal:{tmp_path / 'now'}"
    beside = begin(house)
    (tmp_path / "now").touch()
    until(lambda: not processes.alive(deployment.read("moths").shadow.process), 30, "it is respawned still")
    status = house.moths.status()
    assert (status.running, status.pids) == (True, champion.pids)
    assert status.shadow.reason.startswith("its workers ended 5 times within")
    assert is_gone(beside.pids)
    assert house.version() == "1"
    house.deploy(3)
    ended = [event.detail for event in house.moths.history() if event.action == "shadow ended"]
    assert ended == [status.shadow.reason]


@pytest.mark.parametrize("command", ["start", "stop"])
def test_the_loss_of_the_champion_leaves_no_shadow_behind(house, command):
    champion = house.deploy(1)
    beside = begin(house)
    os.kill(champion.pids[0], signal.SIGKILL)
    until(lambda: is_gone(champion.pids), 15, "its workers go on")
    after = getattr(house.moths, command)()
    assert is_gone(beside.pids)
    assert after.shadow is None
    assert after.running == (command == "start")
    assert not shadow.note_path("moths").exists()


def test_after_a_reboot_the_recorded_shadow_is_not_taken_for_another_with_its_number(house):
    house.deploy(1)
    pids = begin(house).pids
    state = deployment.read("moths")
    processes.end(state.shadow.process)
    stranger = deployment.Process(pid=os.getpid(), created=0.0, control="/nowhere", folder="/nowhere")
    gone = state.shadow.model_copy(update={"process": stranger})
    deployment.write("moths", state.model_copy(update={"shadow": gone}))
    assert is_gone(pids)
    status = house.moths.status()
    assert (status.shadow.running, status.shadow.pids) == (False, ())
    assert status.shadow.reason == "the machine was started anew"
    assert house.moths.stop_shadow().shadow is None
    assert house.version() == "1"


def test_what_an_interrupted_start_of_a_shadow_left_behind_is_ended_by_the_next_command(house, monkeypatch):
    house.deploy(1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shadow, "write_note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(house)
    status = house.moths.status()
    assert (status.running, status.shadow) == (True, None)
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "moths:2" in " ".join(child.cmdline())]


def test_a_state_of_before_shadows_is_read(house):
    house.deploy(1)
    path = deployment.folder() / "moths.json"
    state = deployment.State.model_validate_json(path.read_bytes())
    old = state.model_dump(exclude={"shadow": True, "current": {"config": {"shadow"}}})
    assert "shadow" not in old
    assert "shadow" not in old["current"]["config"]
    read = deployment.State.model_validate(old)
    assert (read.shadow, read.current.config.shadow) == (None, 0)
