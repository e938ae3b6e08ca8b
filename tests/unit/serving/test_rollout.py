"""Rollouts of a made-up model by the real supervisor: real processes, sockets and signals."""

import json
import os
import socket
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from imago.errors import ConfigError, DeploymentFailed
from imago.serving import deployment, processes, trial
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment
from tests.packages import picture_bytes
from tests.waiting import until
from tests.workspace import free_port

TINY_WORKER = Path(__file__).with_name("tiny_worker.py")


def test_first_version_serves_on_the_configured_port(house):
    status = house.deploy(1)
    assert status.running
    assert status.endpoint == house.url
    assert status.model == {"name": "moths", "version": "1"}
    assert status.previous is None
    assert len(status.pids) == 2  # the supervisor and its worker
    assert house.version() == "1"


def test_another_model_takes_the_port_over_and_the_first_gives_way(house):
    first = house.deploy(1)
    butterflies = house.named("butterflies")
    status = butterflies.deploy("butterflies:7", house.config)
    assert status.running
    assert status.model == {"name": "butterflies", "version": "7"}
    assert house.version() == "7"
    assert not house.moths.status().running
    assert house.moths.history()[-1].action == "gave way"
    assert not any(psutil.pid_exists(pid) for pid in first.pids)


def test_switch_loses_no_request_and_ends_the_old_process_tree(house):
    old = house.deploy(1)
    seen: list[str] = []
    failures: list[str] = []
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            try:
                answer = httpx.post(f"{house.url}/predict", content=b"x", timeout=10)
                seen.append(answer.json()["model"]["version"])
            except httpx.HTTPError as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    status = house.deploy(2)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {"1", "2"} == set(seen)
    assert status.model == {"name": "moths", "version": "2"}
    assert status.previous == {"name": "moths", "version": "1"}
    assert not any(psutil.pid_exists(pid) for pid in old.pids)


def test_request_under_way_is_answered_by_the_version_that_took_it(house):
    house.deploy(1)
    with httpx.stream("POST", f"{house.url}/slow", content=b"x") as answer:  # begun, and ended when the worker drains
        house.deploy(2)
        assert house.version() == "2"
        assert json.loads(answer.read())["model"]["version"] == "1"


def test_a_version_that_fails_never_stops_the_one_that_serves(house, broken):
    before = house.deploy(1)
    house.behaviour["moths:2"], reason = broken
    with pytest.raises(DeploymentFailed) as failure:
        house.deploy(2)
    assert str(failure.value).startswith(f"moths:2 was not deployed, moths:1 still serves: {reason} (its log: ")
    after = house.moths.status()
    assert after.pids == before.pids
    assert house.version() == "1"
    assert [(event.action, event.tag) for event in house.moths.history()] == [
        ("deployed", "moths:1"),
        ("failed", "moths:2"),
    ]


def test_the_log_of_a_version_that_fails_is_shown(house):
    house.behaviour["moths:1"] = "dead"
    with pytest.raises(DeploymentFailed, match="nothing is served"):
        house.deploy(1)
    assert "| the model cannot be loaded" in house.lines


def test_start_up_ends_at_the_deadline_and_leaves_no_process(house):
    house.behaviour["moths:1"] = "mute"
    with pytest.raises(DeploymentFailed, match="was not ready within 1 s"):
        house.deploy(1, timeout_seconds=1)
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "moths:1" in " ".join(child.cmdline())]
    assert processes.free("127.0.0.1", house.config.port)


def test_a_port_that_another_program_holds_is_named(house):
    with socket.create_server(("127.0.0.1", house.config.port)), pytest.raises(DeploymentFailed) as failure:
        house.deploy(1)
    assert f"Port {house.config.port} is used by process {os.getpid()}" in str(failure.value)


@pytest.mark.parametrize("name", ["moths", "butterflies"])
def test_another_address_of_the_same_port_takes_over(house, name):
    old = house.deploy(1)
    status = house.named(name).deploy(f"{name}:2", house.config.model_copy(update={"host": "0.0.0.0"}))
    assert status.running
    assert house.version() == "2"
    assert not any(psutil.pid_exists(pid) for pid in old.pids)


def test_the_same_version_is_not_started_twice(house):
    assert house.deploy(1).pids == house.deploy(1).pids


def test_changed_options_start_the_same_version_anew(house):
    before = house.deploy(1)
    after = house.deploy(1, workers=2)
    assert len(after.pids) == 3
    assert set(before.pids).isdisjoint(after.pids)
    assert after.previous is None


def test_a_new_port_is_served_before_the_old_one_is_left(house):
    house.deploy(1)
    old_port, new_port = house.config.port, free_port()
    status = house.deploy(2, port=new_port)
    assert status.endpoint == f"http://127.0.0.1:{new_port}"
    assert processes.free("127.0.0.1", old_port)


def test_rollback_serves_the_version_before(house):
    house.deploy(1)
    house.deploy(2)
    status = house.moths.rollback()
    assert status.model == {"name": "moths", "version": "1"}
    assert status.previous == {"name": "moths", "version": "2"}
    assert house.version() == "1"
    assert house.moths.history()[-1].action == "rolled back"


def test_history_says_who_deployed_why_and_how_each_version_ended(house):
    run = house.named("moths", by="training run 1")
    run.deploy("moths:1", house.config, reason="First of its name: 97.0% of the test pictures named rightly.")
    house.deploy(2)
    house.behaviour["moths:3"] = "wrong"
    with pytest.raises(DeploymentFailed):
        house.deploy(3)
    house.named("moths", by="run.py deployment rollback").rollback(reason="it is bad")
    house.named("moths", by="run.py deployment stop").stop(reason="for the night")
    first, second, third, back, stopped = Deployment("moths").history()  # what another process reads
    assert (first.version, first.by) == ("1", "training run 1")
    assert first.reason == "First of its name: 97.0% of the test pictures named rightly."
    assert (first.outcome, first.ending, first.until) == ("replaced", "by moths:2", second.time)
    assert (second.outcome, second.ending, second.until) == ("rolled back", "to moths:1", back.time)
    assert (third.outcome, third.until) == ("failed", None)
    assert "golden sample 0.jpg was answered 'cat', not 'moth'" in third.detail
    assert (back.outcome, back.by, back.until) == ("stopped", "run.py deployment rollback", stopped.time)
    assert (stopped.action, stopped.by, stopped.outcome) == ("stopped", "run.py deployment stop", None)
    assert (back.reason, stopped.reason) == ("it is bad", "for the night")


def test_a_version_that_cannot_even_be_tried_is_in_the_history(house):
    house.deploy(1)

    def gone(_: str) -> ModelPackage:
        raise DeploymentFailed("moths:2 cannot be deployed, it is not whole")

    house.moths.package = gone
    with pytest.raises(DeploymentFailed, match="not whole"):
        house.deploy(2)
    first, second = house.moths.history()
    assert (first.outcome, second.outcome) == ("serving", "failed")
    assert second.detail == "moths:2 cannot be deployed, it is not whole"
    assert house.version() == "1"


def test_rollback_without_a_version_before_is_refused(house):
    house.deploy(1)
    with pytest.raises(ConfigError, match="no version before"):
        house.moths.rollback()


def test_stop_frees_the_port_and_start_serves_the_same_version(house):
    pids = house.deploy(1).pids
    stopped = house.moths.stop()
    assert not stopped.running
    assert stopped.endpoint is None
    assert stopped.model == {"name": "moths", "version": "1"}
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert processes.free("127.0.0.1", house.config.port)
    assert house.moths.start().running
    assert house.version() == "1"


def test_a_version_whose_workers_die_while_it_is_tried_never_stops_the_one_that_serves(house, tmp_path):
    before = house.deploy(1)
    (tmp_path / "now").touch()
    house.behaviour["moths:2"] = f"mortal:{tmp_path / 'now'}"
    with pytest.raises(DeploymentFailed, match="moths:2 was not deployed, moths:1 still serves"):
        house.deploy(2)
    assert house.moths.status().pids == before.pids
    assert house.version() == "1"
    assert "| out of memory, and out of luck" in house.lines
    assert [entry.outcome for entry in house.moths.history()] == ["serving", "failed"]


def test_a_version_takes_over_only_once_all_its_workers_are_ready(house, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "PROGRESS_SECONDS", 0.1)
    house.deploy(1)
    house.behaviour["moths:2"] = f"late:{tmp_path / 'first'}"
    rollout = threading.Thread(target=house.deploy, args=(2,), kwargs={"workers": 2})
    rollout.start()
    waits = "waiting for moths:2: 1 of 2 workers ready, "
    until(lambda: any(line.startswith(waits) for line in house.lines), 10, lambda: str(house.lines))
    assert house.version() == "1"
    (tmp_path / "now").touch()
    rollout.join()
    assert house.version() == "2"
    assert processes.ask(deployment.read("moths").current.process, "status")["ready"] == 2


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("frail", r"\d of its workers died while it was started"), ("shy", "1 of 2 workers accepted on the public port")],
)
def test_a_version_of_which_one_worker_fails_never_stops_the_one_that_serves(house, tmp_path, behaviour, reason):
    before = house.deploy(1)
    house.behaviour["moths:2"] = f"{behaviour}:{tmp_path / 'first'}"
    with pytest.raises(DeploymentFailed, match=f"moths:2 was not deployed, moths:1 still serves: {reason}"):
        house.deploy(2, workers=2)
    assert house.moths.status().pids == before.pids
    assert {house.version() for _ in range(8)} == {"1"}


def test_what_a_version_has_taken_is_answered_before_it_is_given_up(house, monkeypatch):
    house.deploy(1)
    house.behaviour["moths:2"] = "slow"  # to answer what it is asked, not to start
    answers: list[str] = []
    write = deployment.write

    def asked_and_full(name, state):
        if state.current and state.current.tag == "moths:2":
            asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{private}/slow", content=b"x").text))
            private = f"http://127.0.0.1:{state.current.process.port}"
            asking.start()
            threads.append(asking)
            until(lambda: "begun" in "".join(processes.log_tail(state.current.process)), 10, "it is asked")
            raise OSError(28, "No space left on device")
        write(name, state)

    threads: list[threading.Thread] = []
    monkeypatch.setattr(deployment, "write", asked_and_full)
    with pytest.raises(DeploymentFailed, match="No space left"):
        house.deploy(2)
    threads[0].join()
    assert [json.loads(answer)["model"]["version"] for answer in answers] == ["2"]


def test_what_an_interrupted_deployment_left_behind_is_ended_by_the_next(house):
    house.deploy(1)
    orphan = processes.start("moths", house.command("moths:9"), workers=1, environment=dict(os.environ))
    state = deployment.read("moths")
    deployment.write("moths", state.model_copy(update={"leftover": (orphan,)}))
    house.deploy(2)
    assert not processes.alive(orphan)
    assert deployment.read("moths").leftover == ()


def test_a_deployment_waits_for_another_as_long_as_it_may_take(house):
    with deployment.locked("moths"), pytest.raises(DeploymentFailed, match="right now"):
        house.deploy(1, timeout_seconds=0.3)
    with deployment.locked("moths"):
        waiting = threading.Thread(target=house.deploy, args=(1,))
        waiting.start()
        assert deployment.read("moths").current is None
    waiting.join()
    assert house.version() == "1"


def test_a_version_that_was_replaced_while_it_waited_is_not_deployed(house):
    asked: list[str] = []

    def replaced() -> None:
        asked.append(house.version())
        raise DeploymentFailed("moths:1 was not deployed: version 2 has taken its place in production meanwhile.")

    outcome: list[str] = []

    def late() -> None:
        try:
            house.moths.deploy("moths:1", house.config, require=replaced)
        except DeploymentFailed as error:
            outcome.append(str(error))

    house.deploy(2)
    with deployment.locked("moths"):
        waiting = threading.Thread(target=late)
        waiting.start()
        assert asked == []
    waiting.join()
    assert asked == ["2"]
    assert outcome == ["moths:1 was not deployed: version 2 has taken its place in production meanwhile."]
    assert house.version() == "2"


def test_of_two_models_deployed_to_one_port_at_once_one_is_refused(house):
    outcomes: list[str] = []

    def deploy(name: str) -> None:
        try:
            house.named(name).deploy(f"{name}:1", house.config)
            outcomes.append("serves")
        except DeploymentFailed as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=deploy, args=(name,)) for name in ("moths", "butterflies")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = [name for name in ("moths", "butterflies") if house.named(name).status().running]
    assert "serves" in outcomes
    assert len(running) == 1, outcomes


def test_a_version_that_does_not_answer_its_supervisor_is_not_ended_for_the_next(house):
    before = house.deploy(1)
    psutil.Process(before.pids[0]).suspend()
    try:
        with pytest.raises(DeploymentFailed, match="does not answer its supervisor"):
            house.deploy(2)
        assert house.version() == "1"
    finally:
        psutil.Process(before.pids[0]).resume()


def test_nothing_deployed_is_a_status_not_an_error(house):
    assert house.moths.status().to_json() == {
        "running": False,
        "endpoint": None,
        "model": None,
        "previous": None,
        "pids": [],
        "since": None,
        "reason": None,
        "log": [],
        "shadow": None,
    }
    with pytest.raises(ConfigError, match="Nothing was ever deployed"):
        house.moths.start()


@pytest.mark.parametrize("name", ["../moths", "", "a/b", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(house, name):
    with pytest.raises(ConfigError, match="cannot name a deployment"):
        house.named(name)


@pytest.mark.parametrize("limit", ["max_upload_bytes", "max_pixels"])
def test_a_golden_sample_that_the_endpoint_would_refuse_is_named_before_anything_starts(house, limit):
    house.deploy(1)
    (house.package.path / "golden" / "0.jpg").write_bytes(picture_bytes("red", size=(48, 40)))
    with pytest.raises(
        DeploymentFailed, match=rf"golden sample 0\.jpg has [\d,]+, more than deploy\.{limit} allows \(99\)"
    ):
        house.deploy(2, **{limit: 99})
    assert house.version() == "1"
    assert deployment.read("moths").leftover == ()


def test_a_server_that_cannot_be_started_leaves_the_one_that_serves(house, monkeypatch):
    house.deploy(1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processes, "start", full)
    with pytest.raises(DeploymentFailed, match=r"moths:2 was not deployed, moths:1 still serves: .*No space left"):
        house.deploy(2)
    assert house.version() == "1"


def test_a_failure_that_cannot_be_noted_is_still_told(house, monkeypatch):
    house.deploy(1)
    house.behaviour["moths:2"] = "wrong"
    write = deployment.write

    def full(name, state):
        if state.history and state.history[-1].action == "failed":
            raise OSError(28, "No space left on device")
        write(name, state)

    monkeypatch.setattr(deployment, "write", full)
    with pytest.raises(DeploymentFailed, match="golden sample"):
        house.deploy(2)
    assert house.version() == "1"
    assert any("could not be noted" in line for line in house.lines)


def test_a_neighbour_that_will_not_go_keeps_serving_beside_and_is_named(house):
    house.deploy(1)
    butterflies = house.named("butterflies")
    with deployment.locked("moths"):
        status = butterflies.deploy("butterflies:1", house.config)
    assert status.running
    assert any("moths still serves beside butterflies:1" in line for line in house.lines)


def test_a_dead_record_does_not_hide_who_holds_the_port(house):
    house.deploy(1)
    state = deployment.read("moths")
    processes.end(state.current.process)
    deployment.write("moths", state)
    with socket.create_server(("127.0.0.1", house.config.port)), pytest.raises(DeploymentFailed, match="is used by"):
        house.moths.require_port(house.config)


def test_an_address_that_is_not_this_machines_is_no_port_in_use(house):
    with pytest.raises(DeploymentFailed, match=r"192\.0\.2\.1:\d+ cannot be listened on"):
        house.moths.require_port(house.config.model_copy(update={"host": "192.0.2.1"}))
