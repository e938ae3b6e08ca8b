"""What is known of a deployment: which version serves, which served before, and what happened. One JSON file each."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from imago import home
from imago.config import DeployConfig
from imago.errors import ConfigError, DeploymentFailed, ImagoError

HISTORY = 200  # events
LONGEST = 1000  # characters of what an event says
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class Record(BaseModel):
    """A value of the state file."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Process(Record):
    """A supervisor, known by more than its number: numbers are used again, above all after a reboot."""

    pid: int
    created: float  # seconds since the epoch
    control: str  # its Unix socket
    folder: str  # its log and its metrics
    port: int = 0  # its private door


class Guard(Record):
    """What was in the environment when a version was deployed, and has to be there again when it is started."""

    key: str | None = None  # scrypt's digest of the API key, behind its salt; None: nobody was asked for one
    named: bool = False  # whether it was asked for one of the file of keys
    limits: dict[str, str] = {}


class Version(Record):
    """A version that is served, or was."""

    tag: str
    config: DeployConfig
    since: str  # ISO 8601, UTC
    process: Process | None = None
    guard: Guard = Guard()

    @property
    def model(self) -> dict[str, str]:
        return model_of(self.tag)

    @property
    def endpoint(self) -> str:
        return endpoint(self.config)


class Event(Record):
    """Something that happened to a deployment."""

    time: str  # ISO 8601, UTC
    action: str  # deployed, rolled back, started, stopped, gave way, ended (by itself), failed (to be deployed),
    #              recovered (its server process, from its loss), shadow started, shadow ended,
    #              shadow failed (to be started)
    tag: str
    detail: str = ""
    by: str = ""  # the command or the pipeline run
    reason: str = ""  # the gate's, where a pipeline run deployed it, else that of who gave the command


class Shadow(Record):
    """A version that is asked a share of what the one that serves is asked, and never heard by a client."""

    tag: str
    share: float  # of the requests
    since: str  # ISO 8601, UTC
    process: Process


class State(Record):
    """All that is kept of a deployment. `leftover` processes have to be ended by whoever comes next.

    `unpromoted` is the tag that was rolled back to, until it stands for production as well; `standing` is the number of
    the version that stood for it then.
    """

    current: Version | None = None
    shadow: Shadow | None = None
    previous: Version | None = None
    leftover: tuple[Process, ...] = ()
    unpromoted: str | None = None
    standing: str | None = None
    history: tuple[Event, ...] = ()

    def with_event(
        self, action: str, tag: str, detail: str = "", *, by: str = "", reason: str = "", time: str | None = None
    ) -> "State":
        """Return the state with one event more, and without the oldest where there are too many."""
        said = {"detail": detail[:LONGEST], "by": by[:LONGEST], "reason": reason[:LONGEST]}
        event = Event(time=time or now(), action=action, tag=tag, **said)
        return self.model_copy(update={"history": (*self.history, event)[-HISTORY:]})


class ShadowStatus(Record):
    """What a shadow does at this moment."""

    running: bool
    model: dict[str, str]
    share: float
    since: str
    pids: tuple[int, ...] = ()
    reason: str | None = None  # why it does not answer


class Status(Record):
    """What a deployment does at this moment."""

    running: bool
    endpoint: str | None = None
    model: dict[str, str] | None = None
    previous: dict[str, str] | None = None
    pids: tuple[int, ...] = ()
    since: str | None = None
    reason: str | None = None  # why nothing is served
    log: tuple[str, ...] = ()  # its last lines, where what served ended by itself
    shadow: ShadowStatus | None = None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def model_of(tag: str) -> dict[str, str]:
    """Return the name and the version of the model in a Bento, by its tag `name:version-code`."""
    name, _, version = tag.partition(":")
    return {"name": name, "version": version.rpartition("-")[0] or version}


def endpoint(config: DeployConfig) -> str:
    """Return the address that a client on this machine uses."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def folder() -> Path:
    """Return the folder of all deployments; it is made if absent."""
    path = home.home() / "deployments"
    path.mkdir(parents=True, exist_ok=True)
    return path


def names() -> list[str]:
    """Return the names of the deployments that there are, the one that changed last first."""
    files = sorted(folder().glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.stem for file in files]


def checked(name: str) -> str:
    """Return the name, which becomes a file's name. Raises ConfigError where it cannot."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot name a deployment: use letters, digits, dots, dashes and underscores.")
    return name


def read(name: str) -> State:
    """Return what is known of a deployment; nothing where there is none."""
    path = folder() / f"{checked(name)}.json"
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State()
    except ValidationError as error:
        raise ImagoError(
            f"The state of the deployment in {path} cannot be read ({error.errors()[0]['msg']}): "
            "stop what it serves by hand, remove the file, and deploy again."
        ) from error


def write(name: str, state: State) -> None:
    """Replace the state file in one step, so that no reader ever sees half of it."""
    path = folder() / f"{checked(name)}.json"
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json(indent=2))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(name: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the deployment's lock. Raises DeploymentFailed where another process holds it for longer than the wait."""
    path = folder() / f"{checked(name)}.lock"
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise DeploymentFailed(
                        f"Another command is changing deployment '{name}' right now: wait for it to end, then try "
                        "again."
                    ) from error
                time.sleep(0.1)
        yield
