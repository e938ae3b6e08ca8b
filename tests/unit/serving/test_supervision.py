"""What becomes of a version whose workers, supervisor, log or machine do what they should not."""

import os
import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from imago.serving import deployment, processes
from imago.serving.supervisor import LOOP_DEATHS
from tests.waiting import until

TINY_WORKER = Path(__file__).with_name("tiny_worker.py")


@pytest.mark.parametrize("request_", [b"no json\n", b"[1]\n", b"7\n", b'{"do": "publish"}\n', b"\n", b"[" * 60000])
def test_a_malformed_request_to_the_supervisor_ends_nothing(house, request_):
    before = house.deploy(1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(deployment.read("moths").current.process.control)
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        assert b"not a request" in client.recv(65536)
    assert house.moths.status().pids == before.pids


def test_a_supervisor_that_says_nothing_for_a_moment_hands_its_port_over_all_the_same(house):
    house.deploy(1)
    control = Path(deployment.read("moths").current.process.control)
    away = control.rename(control.with_name("away"))
    threading.Timer(0.5, lambda: away.rename(control)).start()
    assert house.deploy(2).running
    assert house.version() == "2"


def test_a_worker_that_ignores_sigterm_is_ended_too(house):
    house.behaviour["moths:1"] = "stubborn"
    pids = house.deploy(1).pids
    house.moths.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_killed_worker_is_replaced(house):
    status = house.deploy(1)
    os.kill(status.pids[1], signal.SIGKILL)

    def is_replaced() -> bool:
        now = house.moths.status()
        return now.running and len(now.pids) == 2 and now.pids[1] != status.pids[1]

    until(is_replaced, 5, "the worker has not been replaced")
    assert house.version() == "1"
    assert house.moths.status().pids[0] == status.pids[0]


def test_where_no_worker_can_be_started_the_others_go_on_until_one_can(house):
    supervisor, victim, _ = house.deploy(1, workers=2).pids
    process = deployment.read("moths").current.process
    soft, hard = psutil.Process(supervisor).rlimit(psutil.RLIMIT_NOFILE)
    psutil.Process(supervisor).rlimit(psutil.RLIMIT_NOFILE, (0, hard))  # it may open no file more
    os.kill(victim, signal.SIGKILL)

    def failures() -> int:
        return Path(process.folder, "server.log").read_text().count("a worker ended before it began")

    until(lambda: failures() > LOOP_DEATHS, 60, "it is not tried again")
    with pytest.raises(processes.NoAnswerError):
        processes.ask(process, "status", timeout=1)
    assert {house.version() for _ in range(8)} == {"1"}
    psutil.Process(supervisor).rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    until(lambda: len(house.moths.status().pids) == 3, 60, "it is not replaced")
    assert house.moths.status().pids[0] == supervisor


def test_a_crash_loop_is_stopped_and_told_with_the_end_of_the_log(house, tmp_path):
    house.deploy(1)
    house.behaviour["moths:2"] = f"mortal:{tmp_path / 'now'}"
    pids = house.deploy(2).pids
    (tmp_path / "now").touch()
    until(lambda: not psutil.pid_exists(pids[0]) or not house.moths.status().pids, 30, "it is respawned still")
    status = house.moths.status()
    assert not status.running
    assert status.endpoint is None
    assert status.pids == ()
    assert re.fullmatch(r"its workers ended 5 times within \d s, last with exit code 3", status.reason)
    assert "out of memory, and out of luck" in status.log
    assert f"giving up: {status.reason}" in status.log[-1]
    assert processes.free("127.0.0.1", house.config.port)
    _, looped, ended = house.moths.history()
    assert (looped.version, looped.outcome, looped.ending) == ("2", "failed", status.reason)
    assert ended.action == "ended"
    assert house.moths.rollback().running
    assert house.version() == "1"
    assert [entry.action for entry in house.moths.history()] == ["deployed", "deployed", "ended", "rolled back"]


@pytest.fixture
def orphaned(house, monkeypatch):
    """The numbers of a supervisor that was killed and of its worker, which ignores SIGTERM and lives on."""
    monkeypatch.setattr(processes, "ORPHANS_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(processes, "RECOVERY_SECONDS", 0.2)
    house.behaviour["moths:1"] = "wedged"
    supervisor, worker = house.deploy(1).pids
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not processes.alive(deployment.read("moths").current.process), 15, "it is not gone")
    return supervisor, worker


def test_a_worker_that_a_killed_supervisor_left_behind_is_told_and_ended_by_start(house, orphaned):
    supervisor, worker = orphaned
    status = house.moths.status()
    assert not status.running
    assert status.pids == (worker,)
    assert status.reason == f"its server process {supervisor} was killed"
    house.moths.require_port(house.config)
    house.behaviour["moths:1"] = "good"
    assert house.moths.start().running
    assert not psutil.pid_exists(worker)
    assert house.version() == "1"
    assert [entry.outcome for entry in house.moths.history()] == ["failed", None, "serving"]


def test_stop_ends_what_a_killed_supervisor_left_behind(house, orphaned):
    _, worker = orphaned
    status = house.moths.stop()
    assert not psutil.pid_exists(worker)
    assert processes.free("127.0.0.1", house.config.port)
    assert status.pids == ()


def test_a_log_is_rotated_below_its_writers_and_every_line_is_whole(house, monkeypatch):
    monkeypatch.setattr(processes, "LOG_BYTES", 4000)
    house.behaviour["moths:1"] = "chatty"
    house.deploy(1, workers=2)
    folder = Path(deployment.read("moths").current.process.folder)

    said = "a picture of a moth, said to be one " * 10

    def is_rotated() -> bool:
        with httpx.Client(trust_env=False) as client:  # each request on a connection of its own, for either worker
            for _ in range(10):
                client.post(f"{house.url}/predict", content=said.encode())
        return (folder / "server.log.2").exists()

    until(is_rotated, 30, "the log grows")
    logs = sorted(folder.glob("server.log*"))
    assert [log.name for log in logs] == ["server.log", "server.log.1", "server.log.2"]
    lines = [line for log in logs[1:] for line in log.read_text().splitlines()]
    assert {re.sub(r"^\d+ ", "", line) for line in lines} == {f"was asked: {said}."}
    assert len({line.split()[0] for line in lines}) == 2  # workers
    assert house.version() == "1"
    assert processes.log_tail(deployment.read("moths").current.process, 5)[-1].endswith("was asked: x.")


def test_the_end_of_a_log_reaches_into_the_one_before(house):
    house.deploy(1)
    process = deployment.read("moths").current.process
    (Path(process.folder) / "server.log.1").write_text("first\nsecond\n")
    (Path(process.folder) / "server.log").write_text("third\n")
    assert processes.log_tail(process, 2) == ["second", "third"]


def test_workers_end_with_a_killed_supervisor_and_start_brings_the_version_back(house):
    status = house.deploy(1)
    os.kill(status.pids[0], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in status.pids if psutil.pid_exists(pid)], timeout=5)
    assert not house.moths.status().running
    assert house.moths.start().running
    assert house.version() == "1"


def test_a_supervisor_that_somebody_else_ends_says_so(house):
    os.kill(house.deploy(1).pids[0], signal.SIGTERM)
    until(lambda: not house.moths.status().pids, 15, "it is not gone")
    assert house.moths.status().reason == "its server process was ended by SIGTERM"
    assert house.moths.start().running


def test_after_a_reboot_the_recorded_process_is_not_taken_for_another_with_its_number(house):
    house.deploy(1)
    house.moths.stop()
    state = deployment.read("moths")
    stranger = deployment.Process(pid=os.getpid(), created=0.0, control="/nowhere", folder="/nowhere")
    deployment.write(
        "moths", state.model_copy(update={"current": state.current.model_copy(update={"process": stranger})})
    )
    assert not house.moths.status().running
    assert house.moths.status().pids == ()
    assert house.moths.start().running


def test_a_clock_that_was_set_hides_no_server(house):
    pids = house.deploy(1).pids
    state = deployment.read("moths")
    moved = state.current.process.model_copy(update={"created": state.current.process.created - 3600})
    deployment.write("moths", state.model_copy(update={"current": state.current.model_copy(update={"process": moved})}))
    assert house.moths.status().running
    assert house.moths.status().pids == pids
    house.moths.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_home_with_a_long_path_still_gets_its_control_socket(house, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / ("long" * 30)))
    assert house.deploy(1).running
    house.moths.stop()
