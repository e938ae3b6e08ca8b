"""Supervisors as processes of this machine: started, spoken to, and ended with all their workers."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from imago.errors import ImagoError
from imago.serving.deployment import Process, folder

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LONGEST_SOCKET_PATH = 96  # a kernel takes 104 to 108 bytes, and `.new` comes behind it
LOGS_KEPT = 5  # folders of versions that have ended
TAIL_BYTES = 262_144  # of a log, in which its last lines are looked for
LOG_BYTES = 5_000_000  # of server.log; two more of that size are kept
GRACE_SECONDS = 30.0
ORPHANS_GRACE_SECONDS = 10.0
ORPHANS_ROUNDS = 3
RECOVERY_SECONDS = 15.0  # in which another supervisor takes the place of one that was lost, also at a second try
ACCESS = '"logger": "imago.access"'  # in a log of JSON, the line of a request that was answered
METRICS = "PROMETHEUS_MULTIPROC_DIR"

_children: dict[int, "subprocess.Popen[bytes]"] = {}


class NoAnswerError(ImagoError):
    """A supervisor that does not answer."""


def start(
    name: str, command: Sequence[str], *, workers: int, environment: Mapping[str, str], niceness: int = 0
) -> Process:
    """Start a supervisor with its workers, in a session of its own so that it outlives this process.

    The nicer they are, from 0 to 19, the more they leave to others.
    """
    place = folder() / "runs" / f"{name}-{uuid4().hex[:8]}"
    (place / "metrics").mkdir(parents=True)
    _forget_old(name)
    control = str(place / "control")
    if len(control.encode()) > LONGEST_SOCKET_PATH:
        control = str(Path(tempfile.mkdtemp(prefix="imago-")) / "control")
    arguments = ["--control", control, "--folder", str(place), "--log-bytes", str(LOG_BYTES)]
    arguments += ["--workers", str(workers), "--grace", str(GRACE_SECONDS), "--nice", str(niceness), "--", *command]
    with (place / "server.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", str(SUPERVISOR), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place,
            env={**environment, METRICS: str(place / "metrics")},
            start_new_session=True,
        )
    _children[child.pid] = child
    created = psutil.Process(child.pid).create_time()
    return Process(pid=child.pid, created=created, control=control, folder=str(place))


def alive(process: Process) -> bool:
    """Say whether this very process still runs, or who took its place, and not another that was given its number."""
    return _live(process) is not None


def alive_again(process: Process) -> bool:
    """Say whether it is alive, once who takes the place of a lost one has come, where its workers see to that."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while not (found := alive(process)) and time.monotonic() < deadline:
        if not Path(process.control).exists() or not _orphans(process):
            break
        time.sleep(0.1)
    return found


def supervisor(process: Process) -> int:
    """Return the number of the supervisor that was started last: the recorded one, or who took its place."""
    starts = _starts(process)
    return int(starts[-1]["pid"]) if starts else process.pid


def recoveries(process: Process) -> list[tuple[float, str]]:
    """Return when the place of a lost supervisor was taken (seconds since the epoch), and what was lost, in words."""
    starts = _starts(process)
    return [
        (after["started"], f"its server process {before['pid']} was killed, {after['pid']} took its place")
        for before, after in itertools.pairwise(starts)
        if after["recovered"]
    ]


def ask(process: Process, do: str, *, timeout: float = 15.0, **request: Any) -> dict[str, Any]:
    """Send a request to a supervisor and return its answer. Raises NoAnswerError, or ImagoError with what it said."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(process.control)
            client.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
            with client.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"The server process {supervisor(process)} does not answer: {error}") from error
    if "error" in answer:
        raise ImagoError(str(answer["error"]))
    return answer


def end(process: Process, *, grace: float = GRACE_SECONDS) -> list[int]:
    """End a supervisor and its workers: first asked, then terminated, then killed. Return the numbers that ended.

    Where the supervisor is gone already, what it left behind is ended.
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        Path(process.control).unlink(missing_ok=True)  # which tells its workers that it is meant
    if root := _live(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            members = [root, *root.children(recursive=True)]
            root.terminate()
            found += _wait_or_kill(members, grace + 2)
    if child := _children.pop(process.pid, None):
        child.wait(timeout=5)
    for _ in range(ORPHANS_ROUNDS):  # for they may have begun another supervisor before they saw that
        if not (orphans := _orphans(process)):
            break
        for orphan in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.terminate()
        found += _wait_or_kill(orphans, min(grace, ORPHANS_GRACE_SECONDS))
    _clear(process)
    return found


def tree(process: Process) -> tuple[int, ...]:
    """Return the numbers of a supervisor and of all below it; without it, of those that it left behind."""
    root = _live(process)
    if root is None:
        return tuple(orphan.pid for orphan in _orphans(process))
    with contextlib.suppress(psutil.NoSuchProcess):
        below = [child.pid for child in root.children(recursive=True)]
        left = [] if root.pid == process.pid else [orphan.pid for orphan in _orphans(process)]
        return (root.pid, *below, *(pid for pid in left if pid not in {root.pid, *below}))
    return ()


def how_ended(process: Process) -> tuple[str, str | None]:
    """Return why a supervisor that was not told to end is gone, and when, as far as it left word."""
    try:
        word = json.loads((Path(process.folder) / "ended.json").read_bytes())
        return str(word["reason"]), str(word["time"])
    except (OSError, ValueError, LookupError, TypeError):
        if process.created < psutil.boot_time() - 1:
            return "the machine was started anew", None
        return f"its server process {supervisor(process)} was killed", None


def log_tail(process: Process, lines: int = 15, *, access: bool = False) -> list[str]:
    """Return the last lines of a supervisor's log that say something, also of what was rotated out of it.

    That requests were answered is among them only with `access`.
    """
    found: list[str] = []
    for name in ("server.log", "server.log.1"):
        try:
            with (Path(process.folder) / name).open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            continue
        found = [line for line in text.splitlines() if line.strip() and (access or ACCESS not in line)] + found
        if len(found) >= lines:
            break
    return found[-lines:]


def free(host: str, port: int) -> bool:
    """Say whether a server could listen on this port now."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def holder(port: int) -> str:
    """Say which program listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and connection.laddr and connection.laddr.port == port:
                command = " ".join(psutil.Process(connection.pid).cmdline())[:80]
                return f"process {connection.pid} ({command})"
    return "another program"


def _wait_or_kill(members: list[psutil.Process], grace: float) -> list[int]:
    """Wait for processes to end, and kill those that do not. Return their numbers."""
    _, left = psutil.wait_procs(members, timeout=grace)
    for straggler in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            straggler.kill()
    psutil.wait_procs(left, timeout=5)
    return [member.pid for member in members]


def _live(process: Process) -> psutil.Process | None:
    """Return the supervisor that runs: the recorded one, else who took its place."""
    if child := _children.get(process.pid):
        child.poll()
    for pid in dict.fromkeys((process.pid, supervisor(process))):
        try:
            found = psutil.Process(pid)
            recorded = pid == process.pid and abs(float(found.create_time()) - process.created) < 1
            if (recorded or _works_in(found, process.folder)) and found.status() != psutil.STATUS_ZOMBIE:
                return found
        except psutil.NoSuchProcess:
            continue
    return None


def _starts(process: Process) -> list[dict[str, Any]]:
    """Return what the supervisors of this folder have said of their starts, the oldest first."""
    try:
        starts: list[dict[str, Any]] = json.loads((Path(process.folder) / "supervisors.json").read_bytes())
    except (OSError, ValueError):
        return []
    return starts


def _orphans(process: Process) -> list[psutil.Process]:
    """Return what a supervisor that is gone has left behind."""
    return [candidate for candidate in psutil.process_iter() if _works_in(candidate, process.folder)]


def _works_in(candidate: psutil.Process, place: str) -> bool:
    """Tell a process by the folder that no other run has: also after the clock was set, which moves its creation."""
    try:
        mark = candidate.environ().get(METRICS)
        return mark == str(Path(place) / "metrics") and bool(candidate.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):  # another user's, or gone
        return False


def _clear(process: Process) -> None:
    shutil.rmtree(Path(process.folder) / "metrics", ignore_errors=True)
    control = Path(process.control)
    with contextlib.suppress(OSError):
        control.unlink(missing_ok=True)
        if control.parent != Path(process.folder):
            control.parent.rmdir()


def _forget_old(name: str) -> None:
    places = [place for place in (folder() / "runs").glob(f"{name}-????????") if not (place / "metrics").exists()]
    for place in sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)[LOGS_KEPT:]:
        shutil.rmtree(place, ignore_errors=True)
