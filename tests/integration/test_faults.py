"""What becomes of the real endpoint where a worker is killed under load, or the disk is full."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from imago.config import DeployConfig
from imago.home import ROOT
from imago.serving import deployment, key_file, processes
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment
from tests.bentos import build
from tests.packages import make_package, picture_bytes
from tests.waiting import until
from tests.wire import Wire
from tests.workspace import free_port

pytestmark = pytest.mark.slow

CLIENTS = 12
LUNA = {"image": picture_bytes("red")}


@dataclass
class Bento:
    home: Path
    package: ModelPackage
    tag: str


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    folder = tmp_path_factory.mktemp("bento")
    package = make_package(folder / "package")
    built = build(folder / "bentoml", package, "moths", "1")
    assert built.returncode == 0, built.stderr
    return Bento(folder / "bentoml", package, built.stdout.strip())


@dataclass
class Load:
    """Clients that ask without a pause, each on a connection that it keeps."""

    url: str
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[Exception] = field(default_factory=list)
    last: float = 0.0  # when the last answer came

    @contextmanager
    def running(self) -> Iterator["Load"]:
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(over,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def answered(self, count: int) -> None:
        """Wait until so many more are answered."""
        goal = self.statuses.total() + count
        until(lambda: self.statuses.total() >= goal, 60, lambda: f"{self.statuses}, {self.errors}")

    def _ask(self, over: threading.Event) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not over.is_set():
                try:
                    self.statuses[client.post(f"{self.url}/predict", files=LUNA).status_code] += 1
                    self.last = time.monotonic()
                except httpx.HTTPError as error:
                    self.errors.append(error)


def hands_of(worker: int, port: int) -> int:
    """Return how many connections of clients a worker holds."""
    found = psutil.Process(worker).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_costs_the_requests_in_its_hands_and_no_other(
    bento: Bento, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths = Deployment("moths", package=lambda _: bento.package)
    config = DeployConfig(port=free_port(), workers=workers)
    try:
        status = moths.deploy(bento.tag, config)
        load = Load(str(status.endpoint))
        with load.running():
            load.answered(100)
            victim = max(moths.status().pids[1:], key=lambda worker: hands_of(worker, config.port))
            os.kill(victim, signal.SIGSTOP)  # so that nothing new comes into its hands
            in_hands = hands_of(victim, config.port)
            os.kill(victim, signal.SIGKILL)
            killed, at = time.monotonic(), time.time()
            load.answered(1)
            pause = load.last - killed
            if workers == 1:  # all wait for the new one's start, which is as long as its CPU time on an idle machine
                new = psutil.Process(moths.status().pids[1])
                pause = min(pause, new.create_time() - at + sum(new.cpu_times()[:2]))
            load.answered(100)
        assert set(load.statuses) == {200}
        assert in_hands >= 1
        assert len(load.errors) <= in_hands
        assert all(isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) for error in load.errors)
        assert pause < 3.0
        assert victim not in moths.status().pids
    finally:
        moths.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_supervisor_is_replaced_and_no_request_is_lost(
    bento: Bento, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths = Deployment("moths", package=lambda _: bento.package)
    config = DeployConfig(port=free_port(), workers=workers)
    before = moths.deploy(bento.tag, config)
    try:
        load = Load(str(before.endpoint))
        with load.running():
            load.answered(50)
            os.kill(before.pids[0], signal.SIGKILL)
            until(lambda: has_ended(before.pids[0]), 10, "it lives")
            during = moths.status()
            assert (during.running, during.endpoint) == (True, before.endpoint)
            assert during.pids[0] not in before.pids
            until(lambda: all(map(has_ended, before.pids[1:])), 60, lambda: told(before))
            load.answered(50)
        assert (set(load.statuses), load.errors) == ({200}, [])
        after = moths.status()
        assert (after.running, len(after.pids), after.since) == (True, 1 + workers, before.since)
        assert not set(after.pids) & set(before.pids)
        assert moths.deploy(bento.tag, config).pids == after.pids  # it is the same deployment
        recovered = [entry for entry in moths.history() if entry.action == "recovered"]
        lost = f"its server process {before.pids[0]} was killed, {after.pids[0]} took its place"
        assert [(entry.tag, entry.detail) for entry in recovered] == [(bento.tag, lost)]
        log = (Path(served("moths").folder) / "server.log").read_text()
        assert log.count("The supervisor is lost: this worker serves on") == workers
        assert [entry.outcome for entry in moths.history()] == ["serving", None]
        stopped = moths.stop()
        assert (stopped.running, stopped.pids) == (False, ())
        assert all(map(has_ended, after.pids))
        assert processes.free(config.host, config.port)
    finally:
        moths.stop()


def test_a_worker_that_is_told_to_end_answers_what_it_has_taken(
    bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths = Deployment("moths", package=lambda _: bento.package)
    try:
        status = moths.deploy(bento.tag, DeployConfig(port=free_port(), workers=2))
        load = Load(str(status.endpoint))
        with load.running():
            load.answered(20)
            os.kill(status.pids[1], signal.SIGTERM)
            until(lambda: status.pids[1] not in moths.status().pids, 30, "it goes on")
            load.answered(20)
        assert (set(load.statuses), load.errors) == ({200}, [])
    finally:
        moths.stop()


def test_a_version_whose_supervisor_was_just_killed_is_replaced_and_no_request_is_lost(
    bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths, config = Deployment("moths", package=lambda _: bento.package), DeployConfig(port=free_port(), workers=1)
    before = moths.deploy(bento.tag, config)
    try:
        load = Load(str(before.endpoint))
        with load.running():
            load.answered(20)
            os.kill(before.pids[0], signal.SIGKILL)
            after = moths.deploy(bento.tag, config.model_copy(update={"top_k": 1}))
            load.answered(20)
        assert (set(load.statuses), load.errors) == ({200}, [])
        assert all(map(has_ended, before.pids))
        assert moths.status().pids == after.pids
    finally:
        moths.stop()


def test_supervisors_that_are_killed_again_and_again_come_back_no_more(
    bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths, config = Deployment("moths", package=lambda _: bento.package), DeployConfig(port=free_port(), workers=1)
    moths.deploy(bento.tag, config)

    def is_given_up() -> bool:
        status = moths.status()
        if status.running:
            with suppress(ProcessLookupError):
                os.kill(status.pids[0], signal.SIGKILL)
        return status.pids == ()

    try:
        until(is_given_up, 60, "it is started still")
        status = moths.status()
        assert re.fullmatch(r"its server process was killed 6 times within \d+ s", str(status.reason))
        assert processes.free(config.host, config.port)
        assert moths.history()[-1].action == "ended"
        assert moths.start().running
    finally:
        moths.stop()


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, though its parent may not have noticed yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def told(status: deployment.Status) -> str:
    """What a server wrote, where it did not do what was waited for."""
    return f"{status}\n" + "\n".join(processes.log_tail(served("moths"), 40))


def test_a_rate_limit_holds_over_all_workers(bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    monkeypatch.setenv("IMAGO_RATE_LIMIT", "0.01")  # one request in 100 s
    package = tmp_path / "package"
    shutil.copytree(bento.package.path, package)
    golden = package / "golden" / "golden.json"
    golden.write_text(json.dumps(json.loads(golden.read_text())[:1]))  # a probe has no more requests than others
    headers = {"X-API-Key": key_file.add("phone")[1]}
    moths = Deployment("moths", package=lambda _: ModelPackage(package))
    try:
        status = moths.deploy(bento.tag, DeployConfig(port=free_port(), workers=2))
        one, other = processes.ask(served("moths"), "status")["workers"]
        answers = []
        for asked, silent in ((one, other), (other, one)):
            os.kill(silent, signal.SIGSTOP)
            answers.append(httpx.get(f"{status.endpoint}/info", headers=headers, timeout=30).status_code)
            os.kill(silent, signal.SIGCONT)
            assert psutil.pid_exists(asked)
        assert answers == [200, 429]
    finally:
        moths.stop()


def test_more_connections_than_a_worker_may_hold_keep_nobody_out(
    bento: Bento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(bento.home))
    moths = Deployment("moths", package=lambda _: bento.package)
    try:
        status = moths.deploy(bento.tag, DeployConfig(port=free_port(), workers=1, max_connections=20))
        url = str(status.endpoint)
        (worker,) = processes.ask(served("moths"), "status")["workers"]
        idle = []
        for _ in range(10):
            idle += [Wire(url) for _ in range(30)]
            assert httpx.post(f"{url}/predict", files=LUNA, trust_env=False).status_code == 200
            assert hands_of(worker, int(url.rpartition(":")[2])) <= 21
        told = httpx.get(f"{url}/metrics", trust_env=False).text
        assert all(wire.is_closed() for wire in idle[:280])
        for wire in idle:
            wire.socket.close()
        (closed,) = [line for line in told.splitlines() if line.startswith("imago_connections_over_limit_total{")]
        assert float(closed.rpartition(" ")[2]) >= 280
    finally:
        moths.stop()


def served(name: str) -> deployment.Process:
    """Return the process of what serves."""
    current = deployment.read(name).current
    assert current is not None
    assert current.process is not None
    return current.process


def test_on_a_full_disk_predictions_go_on_and_it_is_told(bento: Bento, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small += ['mount -t tmpfs -o size=12m none "$0" && exec "$@"', str(disk)]
    if subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a small disk in a namespace of its own")
    home = tmp_path / "bentoml"
    home.mkdir()
    for part in bento.home.iterdir():  # all but the counts, which are to be on the small disk
        if part.name != "imago-metrics":
            (home / part.name).symlink_to(part)
    command = [sys.executable, "-m", "tests.integration.full_disk", str(disk), str(home), str(bento.package.path)]
    done = subprocess.run(
        [*small, *command, bento.tag], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["before"] == [[200] * 5, []]
    assert facts["full"] == [200] * 60
    assert facts["degraded"] == ["predictions", "log"]
    assert facts["lines_lost"] >= 40  # the first few found room in the last page
    assert facts["feedback"] == [503, "not_kept"]
    answers, degraded, same_supervisor = facts["after a worker was killed"]
    assert answers == [200] * 20
    assert degraded == ["predictions", "log", "metrics"]
    assert same_supervisor
