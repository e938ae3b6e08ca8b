"""Keeps the workers of one version alive and owns its two doors: a private port, and the public one once published.

Run as a file, with the standard library alone, so that it starts at once and never shadows the code inside a Bento.
Over a Unix socket it takes one JSON line a connection: `status`, `publish`, `lend` (hands over the public listening
socket, so that two versions accept from one queue while they change places and no connection is lost).

A worker command is started with `--fd N` (the private listening socket) and `--control M` (a Unix socket). It writes
`R` when it answers; it is sent `P` with the public listening socket, writes `A` once it accepts there, and drains and
exits on `D`. Its environment says in `IMAGO_SUPERVISOR` how its supervisor was started.

Where it is killed, its workers go on, and start another in its place with the listening sockets that they have
(`--private`, `--public`). They ask it `relieve` until its own workers accept, and only then drain. Its control path
says that this is wanted: whoever ends a version on purpose removes that first. A lock that lives as long as a
supervisor does keeps it at one, whoever starts it, and `supervisors.json` names it to those who knew the one before.

It stops for good where workers, or supervisors, die again and again, and says why in `ended.json` beside its log. That
log it bounds: its workers hold it open, and append to it, so it is copied and emptied, not renamed.
"""

import argparse
import contextlib
import fcntl
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

EARLY_DEATHS = 3  # before any worker answered
LOOP_DEATHS = 5  # of a worker and those that came in its place
LOOP_SECONDS = 60.0
PUBLISH_SECONDS = 10.0
RELIEF_SECONDS = 5.0  # since they last asked: those that a supervisor before left behind serve still
PAUSE_SECONDS = 0.5  # where the machine has run out of something
STARTS_KEPT = 100  # in supervisors.json
LOGS_BEFORE = 2  # what was in the log, kept as server.log.1 and so on


@dataclass
class Worker:
    process: "subprocess.Popen[bytes]"
    control: socket.socket
    ready: bool = False
    accepts: bool = False
    since: float = 0.0  # a moment of time.monotonic: when it was ready, as far as we know

    def read(self, timeout: float) -> None:
        """Take in what the worker has said; a worker that is gone is noticed by its process."""
        self.control.settimeout(timeout)
        try:
            said = self.control.recv(16)
        except OSError:
            return
        if b"R" in said:
            self.ready, self.since = True, time.monotonic()
        self.accepts |= b"A" in said


class Supervisor:
    def __init__(
        self,
        command: list[str],
        count: int,
        control: str,
        folder: str,
        grace: float,
        log_bytes: int,
        *,
        private: socket.socket | None = None,
        public: socket.socket | None = None,
    ) -> None:
        self.command, self.count, self.path, self.folder, self.grace = command, count, control, folder, grace
        self.log_bytes = log_bytes
        self.private = private or socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.public = public
        self.asked_for_relief = -math.inf  # a moment of time.monotonic
        self.workers: list[Worker] = []
        self.deaths: list[float] = []  # moments of the last minute
        self.failed_starts = 0  # in a row
        self.lost = 0  # workers that died since one of them has answered
        self.was_ready = False
        self.stopping = ""  # by which signal
        self.respawn_at = 0.0
        self.how = ""
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{control}.new")  # noqa: PTH108
        self.door.bind(f"{control}.new")  # where one that was lost has left its own, there is no moment without
        self.door.listen(8)
        os.rename(f"{control}.new", control)  # noqa: PTH104

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        selector = selectors.DefaultSelector()
        selector.register(self.door, selectors.EVENT_READ)
        while not self.stopping:
            self._tend()
            rotate(os.path.join(self.folder, "server.log"), self.log_bytes)  # noqa: PTH118
            if reason := self._loop():
                say(f"giving up: {reason}")
                leave_word(self.folder, reason)
                self._end()
                return 1
            for _ in selector.select(timeout=0.1):
                self._answer()
        if os.path.exists(self.path):  # noqa: PTH110  (a deployment's commands remove it first)
            leave_word(self.folder, f"its server process was ended by {self.stopping}")
        self._end()
        return 0

    def _stop(self, number: int, _: object) -> None:
        self.stopping = signal.Signals(number).name

    def _tend(self) -> None:
        for worker in list(self.workers):
            worker.read(0.001)
            self.was_ready |= worker.ready
            if worker.process.poll() is not None:
                self._bury(worker)
        if len(self.workers) < self.count and time.monotonic() >= self.respawn_at:
            self._spawn()

    def _bury(self, worker: Worker) -> None:
        self.how = how_ended(worker.process.returncode)
        say(f"worker {worker.process.pid} ended {self.how}")
        self.workers.remove(worker)
        worker.control.close()
        now = time.monotonic()
        self.deaths = [moment for moment in self.deaths if now - moment < LOOP_SECONDS] + [now]
        self._count(0 if worker.ready else self.failed_starts + 1)

    def _count(self, failed_starts: int) -> None:
        """Take note that a worker is not to be had, and wait the longer for another the more often that was so."""
        self.failed_starts = failed_starts
        self.lost += self.was_ready
        again = max(len(self.deaths), self.failed_starts) - 1
        self.respawn_at = time.monotonic() + min(0.2 * 2 ** min(again, 8), 30.0)

    def _loop(self) -> str:
        """Say what dies again and again; nothing where it does not, or where another worker has held for a while."""
        now = time.monotonic()
        if now - self.asked_for_relief < RELIEF_SECONDS:
            return ""
        if not self.was_ready:
            enough = self.failed_starts >= EARLY_DEATHS + self.count - 1
            return f"its worker ended {self.failed_starts} times before it answered, last {self.how}" if enough else ""
        if any(worker.ready and now - worker.since > LOOP_SECONDS for worker in self.workers):
            return ""
        if self.failed_starts >= LOOP_DEATHS and not any(worker.ready for worker in self.workers):
            return f"its worker ended {self.failed_starts} times before it answered again, last {self.how}"
        if len(self.deaths) >= LOOP_DEATHS + self.count - 1:  # all may die at once without a loop
            span = f"{now - self.deaths[0]:.0f} s"
            return f"its workers ended {len(self.deaths)} times within {span}, last {self.how}"
        return ""

    def _spawn(self) -> None:
        try:
            worker = self._started()
        except OSError as error:  # the machine has no more processes, memory or files for now
            self.how = f"before it began: {error}"
            say(f"a worker ended {self.how}")
            self._count(self.failed_starts + 1)
            return
        self.workers.append(worker)
        if self.public is not None:
            self._hand(worker)

    def _started(self) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            doors = (self.private.fileno(), theirs.fileno())
            command = [*self.command, "--fd", str(doors[0]), "--control", str(doors[1])]
            try:
                return Worker(subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=doors), ours)
            except OSError:
                ours.close()
                raise

    def _hand(self, worker: Worker) -> None:
        assert self.public is not None
        with contextlib.suppress(OSError):  # a worker that has just died is respawned, and handed the socket then
            socket.send_fds(worker.control, [b"P"], [self.public.fileno()])

    def _answer(self) -> None:
        try:
            client, _ = self.door.accept()
        except OSError as error:  # no more files may be open; who asked waits, or is gone
            say(f"a request could not be taken: {error}")
            time.sleep(PAUSE_SECONDS)
            return
        with client, contextlib.suppress(OSError):  # a caller that went away
            client.settimeout(1)
            with client.makefile("rb") as lines:
                line = lines.readline(65536)
            request: dict[str, Any] = {}
            try:
                request = dict(json.loads(line))
                answer = self._do(request)
            except OSError as error:
                answer = {"error": str(error)}
            except (ValueError, TypeError, LookupError, RecursionError):
                answer = {"error": "this is not a request"}
            fds = [self.public.fileno()] if request.get("do") == "lend" and self.public is not None else []
            socket.send_fds(client, [json.dumps(answer).encode() + b"\n"], fds)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "publish":
                return self._publish(
                    request["host"], int(request["port"]), request.get("lender"), request.get("beside")
                )
            case "lend":
                return {"ok": True} if self.public is not None else {"error": "nothing is published here"}
            case "relieve":
                self.asked_for_relief = time.monotonic()
                relieved = self._accepting() == self.count
                if relieved:
                    self.deaths.clear()  # as those before had the memory, say, that was lacking
                return {"relieved": relieved}
        return {
            "pid": os.getpid(),
            "port": self.private.getsockname()[1],
            "workers": [worker.process.pid for worker in self.workers],
            "wanted": self.count,
            "ready": sum(worker.ready for worker in self.workers),
            "published": self.public is not None,
            "lost": self.lost,
        }

    def _publish(self, host: str, port: int, lender: str | None, beside: str | None) -> dict[str, Any]:
        self.public = borrow(lender) if lender else listen_beside(beside, host, port) if beside else listen(host, port)
        for worker in self.workers:
            worker.accepts = False
            self._hand(worker)
        deadline = time.monotonic() + PUBLISH_SECONDS
        while (accepting := self._accepting()) < self.count:
            for worker in self.workers:
                worker.read(0.05)
            died = any(worker.process.poll() is not None for worker in self.workers)
            if died or time.monotonic() > deadline:
                self.public.close()
                self.public = None
                failed = "before one of them ended" if died else f"within {PUBLISH_SECONDS:.0f} s"
                return {"error": f"{accepting} of {self.count} workers accepted on the public port {failed}"}
        return {"ok": True}

    def _accepting(self) -> int:
        return sum(worker.accepts for worker in self.workers)

    def _end(self) -> None:
        self.door.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.control.settimeout(1)
                worker.control.send(b"D")
        self.private.close()
        if self.public is not None:
            self.public.close()
        deadline = time.monotonic() + self.grace
        for worker in self.workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                say(f"worker {worker.process.pid} did not end within {self.grace:.0f} s: killed")
                worker.process.kill()
                worker.process.wait()


def starts(folder: str) -> list[dict[str, Any]]:
    """Return what the supervisors before this one have noted of their starts, the oldest first."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, "supervisors.json"), "rb") as file:  # noqa: PTH118, PTH123
        found = json.load(file)
    return found


def lost_too_often(before: list[dict[str, Any]]) -> str:
    """Say how often supervisors were lost of late, where that is too often for another to come."""
    now = time.time()
    lately = [one["started"] for one in before if one["recovered"] and 0 <= now - one["started"] < LOOP_SECONDS]
    if len(lately) < LOOP_DEATHS:
        return ""
    return f"its server process was killed {len(lately) + 1} times within {now - lately[0]:.0f} s"


def leave_word(folder: str, reason: str) -> None:
    """Write down why it ends; where that cannot be, the log has it."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_whole(os.path.join(folder, "ended.json"), {"time": moment, "reason": reason})  # noqa: PTH118
    except OSError as error:
        say(f"why could not be noted: {error}")


def write_whole(path: str, value: Any) -> None:
    """Write JSON that nobody ever sees half of. Raises OSError."""
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(value, file)
    os.replace(f"{path}.tmp", path)  # noqa: PTH105


def rotate(log: str, limit: int) -> None:
    """Move what is in a log that has reached the limit to the logs before it. What cannot be kept is given up."""
    try:
        if os.stat(log).st_size < limit:  # noqa: PTH116
            return
    except OSError:  # somebody has removed it
        return
    try:
        for number in range(LOGS_BEFORE, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{log}.{number - 1}", f"{log}.{number}")  # noqa: PTH105
        with open(log, "rb") as full, open(f"{log}.1", "wb") as before:  # noqa: PTH123
            while part := full.read(1 << 20):
                before.write(part)
    except OSError as error:
        say(f"the log could not be kept: {error}")
    with contextlib.suppress(OSError):
        os.truncate(log, 0)


def how_ended(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on the public port; a port in use raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    public = socket.socket(family, kind, protocol)
    try:
        public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        public.bind(address)
        public.listen(1024)
    except OSError:
        public.close()
        raise
    return public


def listen_beside(control: str, host: str, port: int) -> socket.socket:
    """Listen on another address of the port of another supervisor, such as 0.0.0.0 beside its 127.0.0.1.

    Both sockets share the port for this moment only: whoever comes later finds it in use.
    """
    with borrow(control) as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            public = listen(host, port, shared=True)
        finally:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    return public


def borrow(control: str) -> socket.socket:
    """Return the public listening socket of another supervisor: the same socket, not another on the same port."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(control)
        client.sendall(b'{"do": "lend"}\n')
        answer, fds, _, _ = socket.recv_fds(client, 65536, 1)
    if not fds:
        raise OSError(f"the version that is serving did not hand over its port: {answer.decode(errors='replace')}")
    return socket.socket(fileno=fds[0])


def be_nice(niceness: int) -> None:
    """Leave the processor to others, with all workers: also where Linux weighs whole sessions, as this one is."""
    os.nice(niceness)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:  # noqa: PTH123
        group.write(str(niceness))


def say(line: str) -> None:
    """Write a line to the log, in the format that its workers write theirs in."""
    if os.environ.get("IMAGO_LOG_FORMAT") == "json":
        moment = datetime.now(UTC).isoformat()
        record = {"level": "INFO", "logger": "imago.supervisor", "message": line, "request_id": None, "time": moment}
        line = json.dumps(record)
    else:
        line = f"[supervisor] {line}"
    with contextlib.suppress(OSError):  # a full disk costs the line, and no worker
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep the workers of one version alive.")
    parser.add_argument("--control", required=True)
    parser.add_argument("--folder", required=True, help="where its log lies")
    parser.add_argument("--log-bytes", type=int, default=5_000_000, help="how large its log may grow")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--grace", type=float, default=30.0, help="seconds that requests under way may take")
    parser.add_argument("--nice", type=int, default=0, help="how much to leave to others, from 0 to 19")
    parser.add_argument("--private", type=int, help="the private listening socket of one that was lost")
    parser.add_argument("--public", type=int, help="likewise the public one")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    with open(os.path.join(arguments.folder, "supervisor.lock"), "wb") as lock:  # noqa: PTH118, PTH123
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another worker has started one as well
            return 0
        return supervise(arguments)


def supervise(arguments: argparse.Namespace) -> int:
    """Keep the workers alive, as the only supervisor of this folder. Return the exit code."""
    recovered = arguments.private is not None
    before = starts(arguments.folder) if recovered else []
    if recovered and not os.path.exists(arguments.control):  # noqa: PTH110  (it is not wanted any more)
        return 0
    if reason := lost_too_often(before):
        say(f"giving up: {reason}")
        leave_word(arguments.folder, reason)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(arguments.control)  # noqa: PTH108
        return 1
    if recovered:
        say("another supervisor was lost: this one takes its place")
    else:
        how = {"python": [sys.executable, "-P", os.path.abspath(__file__)], "arguments": sys.argv[1:]}  # noqa: PTH100
        os.environ["IMAGO_SUPERVISOR"] = json.dumps(how | {"control": arguments.control, "folder": arguments.folder})
    if arguments.nice:
        be_nice(arguments.nice)
    supervisor = Supervisor(
        arguments.command,
        arguments.workers,
        arguments.control,
        arguments.folder,
        arguments.grace,
        arguments.log_bytes,
        private=None if arguments.private is None else socket.socket(fileno=arguments.private),
        public=None if arguments.public is None else socket.socket(fileno=arguments.public),
    )
    ours = {"pid": os.getpid(), "started": time.time(), "recovered": recovered}
    try:  # to name it to those who knew the one before, now that it can be asked
        write_whole(os.path.join(arguments.folder, "supervisors.json"), [*before[-STARTS_KEPT:], ours])  # noqa: PTH118
    except OSError as error:
        say(f"its start could not be noted: {error}")
        if recovered:  # nobody would find it, and its workers' predecessors serve on
            return 1
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
