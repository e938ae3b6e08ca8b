"""A place of its own for one test module: ZenML configuration, stores, MLflow, Bentos, reports, ports, processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
MARK = "IMAGO_HOME"
THEIRS = (
    "ZENML_",
    "BENTOML_",
    "IMAGO_",
    "MLFLOW_",
    "_MLFLOW_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
)
"""What a user may have set for themselves, which is no business of a test."""
TINY = ("--set", "model.architecture=test_resnet", "--set", "model.weights=none")
"""timm's own network for tests: it learns the moths in seconds."""


def free_port() -> int:
    """Return a TCP port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Outcome:
    """What a command printed and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON value; anything else on it is an error."""
        return json.loads(self.stdout)


@dataclass
class Workspace:
    """A copy of the project with its own stores, in a folder that goes away with the test."""

    folder: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.code = self.folder / "imago"
        shutil.copytree(ROOT, self.code, ignore=_ignored)
        (self.code / ".zen").mkdir(exist_ok=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(THEIRS)},
            "ZENML_CONFIG_PATH": str(self.folder / "zenml"),
            MARK: str(self.folder / "home"),
            "IMAGO_REPORTS": str(self.folder / "reports"),
            "HF_HUB_OFFLINE": "1",
        }

    def run(
        self,
        *arguments: str,
        timeout: float = 500,
        environment: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> Outcome:
        """Run `run.py` with these arguments to its end; `before` is a command that takes it as its arguments."""
        done = subprocess.run(
            [*before, sys.executable, "run.py", *arguments],
            cwd=self.code,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start `run.py` with these arguments, and write what it says on standard error to a file."""
        with log.open("wb") as sink:
            return subprocess.Popen(
                [sys.executable, "run.py", *arguments],
                cwd=self.code,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=sink,
            )

    def python(self, code: str, timeout: float = 120) -> Any:
        """Run Python code in the workspace and return its last line of output, read as JSON."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.code,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    def processes(self) -> list[psutil.Process]:
        """Return every process that was started, at whatever distance, by a command of this workspace."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.environment[MARK]:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> list[psutil.Process]:
        """Kill every process of this workspace, and return them."""
        left = self.processes()
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return left

    def close(self) -> None:
        """End whatever was left running, and what that began when it was left alone."""
        while left := self.kill():
            psutil.wait_procs(left, timeout=10)


def _ignored(folder: str, names: list[str]) -> set[str]:
    if Path(folder) == ROOT:  # `imago/data` is code, `data` is not
        generated = {".git", ".venv", ".imago", "reports", "data", "docs", "notebooks", "build", "dist"}
        return {name for name in names if name in generated or name.endswith(("_cache", ".egg-info", ".hypothesis"))}
    return {name for name in names if name == "__pycache__"}
