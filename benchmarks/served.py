"""Servers in process trees of their own, for as long as they are measured: ours as it is deployed, and others."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks.load import HOST, press
from benchmarks.rivals import PACKAGE
from imago.config import DeployConfig
from imago.home import ROOT
from imago.serving import deployment, guard
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment

NAME = "bench"
START_SECONDS = 120.0
LOAD_SECONDS = 300.0
SETTLE_SECONDS = 0.3  # what is kept of a request is written a moment after its answer
_BUILD = """
import sys
from pathlib import Path
from imago.serving.bento import build_bento
from imago.serving.package import ModelPackage
print(build_bento(ModelPackage(Path(sys.argv[1])), name=sys.argv[2], version=sys.argv[3]))
"""


@dataclass(frozen=True)
class Server:
    """A process tree that answers on a port of the loopback address."""

    root: psutil.Process
    port: int
    workers: int
    start: float  # seconds until it was ready

    def tree(self) -> list[psutil.Process]:
        return [self.root, *self.root.children(recursive=True)]

    def cpu(self, messages: Sequence[bytes], *, clients: int, requests: int) -> float:
        """Return the CPU milliseconds that the whole tree takes for a request."""
        before = self._cpu()
        press(self.port, messages, clients=clients, requests=requests, seconds=LOAD_SECONDS)
        time.sleep(SETTLE_SECONDS)
        return 1000 * (self._cpu() - before) / requests

    def resident(self) -> float:
        """Return the resident memory of the largest worker, in MB."""
        return self._memory("Rss")[0]

    def resident_in_all(self) -> float:
        """Return the resident memory of all workers, in MB."""
        return sum(self._memory("Rss"))

    def private(self) -> float:
        """Return the memory that a worker shares with no other, in MB: what one more of them takes."""
        return sum(self._memory("Private_Clean", "Private_Dirty")) / self.workers

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:4]) for process in self.tree())

    def _memory(self, *fields: str) -> list[float]:
        """Return the workers' memory, the largest first; whoever supervises them holds no model."""
        found = [memory(process.pid, *fields) for process in self.tree()]
        return sorted(found, reverse=True)[: self.workers]


def memory(pid: int, *fields: str) -> float:
    """Return the sum of fields of a process's mappings, such as `Rss`, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    values = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return sum(values[field] for field in fields) / 1024


@dataclass(frozen=True)
class Bare:
    """What the loop without a server takes."""

    cpu: float  # milliseconds a picture
    memory: float  # MB, resident


def loop(package: ModelPackage, pictures: Sequence[Path], times: int) -> Bare:
    """Run `benchmarks.loop` over pictures, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loop", str(package.path), str(times), *map(str, pictures)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        resident = memory(process.pid, "Rss")
        process.communicate("\n")
    return Bare(float(line), resident)


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """Deploy below a folder, guarded and limited by nothing that the user's own deployments are."""
    ours = {"IMAGO_HOME": str(folder), "BENTOML_HOME": str(folder / "bentoml")}
    before = dict(os.environ)
    os.environ.update(ours)
    for name in (guard.KEY, *guard.LIMITS):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def build(package: ModelPackage, name: str, version: str = "1") -> str:
    """Build a package's Bento in a process of its own, since BentoML looks only once where its home is: its tag."""
    command = [sys.executable, "-c", _BUILD, str(package.path), name, version]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1]


@contextmanager
def deployed(tag: str, package: ModelPackage, workers: int) -> Iterator[Server]:
    """Deploy a Bento as the pipeline does, below the `home` of this moment; golden samples are part of its start."""
    ours = Deployment(NAME, package=lambda _: package)
    config = DeployConfig(port=free_port(), workers=workers)
    begun = time.perf_counter()
    ours.deploy(tag, config)
    start = time.perf_counter() - begun
    current = deployment.read(NAME).current
    assert current is not None
    assert current.process is not None
    try:
        yield Server(psutil.Process(current.process.pid), config.port, workers, start)
    finally:
        ours.stop()


def changing(package: ModelPackage, tags: Sequence[str]) -> list[tuple[str, Callable[[], str]]]:
    """Return what changes the version that is `deployed`, by name: five deploys by turns and two ways back."""
    ours = Deployment(NAME, package=lambda _: package)
    current = deployment.read(NAME).current
    assert current is not None
    config = current.config

    def deploy(tag: str) -> str:
        ours.deploy(tag, config)
        return version()

    def back() -> str:
        ours.rollback()
        return version()

    def version() -> str:
        now = deployment.read(NAME).current
        assert now is not None
        return deployment.model_of(now.tag)["version"]

    deploys = [("deploy", partial(deploy, tags[(turn + 1) % len(tags)])) for turn in range(5)]
    return [*deploys, ("rollback", back), ("rollback", back)]


@contextmanager
def rival(factory: str, package: ModelPackage, workers: int) -> Iterator[Server]:
    """Serve one of `benchmarks.rivals` with uvicorn."""
    port = free_port()
    options = ["--host", HOST, "--port", str(port), "--workers", str(workers), "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.rivals:{factory}", *options]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--no-access-log"], cwd=ROOT, env={**os.environ, PACKAGE: str(package.path)})
    root = psutil.Process(process.pid)
    try:
        while not _is_ready(port):
            if process.poll() is not None:
                raise RuntimeError(f"the {factory} service ended with {process.returncode} while starting")
            _wait(begun)
        yield Server(root, port, workers, time.perf_counter() - begun)
    finally:
        tree = [*root.children(recursive=True), root]
        process.terminate()
        _, left = psutil.wait_procs(tree, timeout=10)
        for one in left:
            one.kill()
        process.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _wait(begun: float) -> None:
    if time.perf_counter() - begun > START_SECONDS:
        raise TimeoutError(f"a server was not ready within {START_SECONDS:.0f} s")
    time.sleep(0.05)
