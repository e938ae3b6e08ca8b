"""Starts a version behind its private door, where it must answer its golden samples before anybody else asks it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from imago import home, telemetry
from imago.config import DeployConfig
from imago.errors import DeploymentFailed, ImagoError
from imago.serving import deployment, golden_samples, guard, health, host_name, processes, shelf
from imago.serving.deployment import Process
from imago.serving.package import ModelPackage

PROGRESS_SECONDS = 5.0
MOST_WORKERS = 4  # where nobody says how many: each holds the model


@dataclass(frozen=True)
class Trial:
    """One version that is tried."""

    name: str  # under which its logs lie
    tag: str
    package: ModelPackage
    config: DeployConfig
    command: Sequence[str]
    say: Callable[[str], None]
    failed: str  # what a failure means, such as "moths:2 was not deployed"

    @contextmanager
    def passed(
        self,
        environment: Mapping[str, str],
        key: str,
        *,
        began: Callable[[Process], None],
        workers: int,
        niceness: int = 0,
        keys: Path | None = None,
    ) -> Iterator[Process]:
        """Give its process, once all its workers are ready and it has answered its golden samples.

        What fails then, or with it, ends the process. `began` is told of the process at once. `keys` is the file of
        those that it must ask for, if it must. Raises DeploymentFailed.
        """
        deadline = time.monotonic() + self.config.timeout_seconds
        process: Process | None = None
        grace = 1.0  # nobody waits for the answers of what was never published
        try:
            process = processes.start(
                self.name, self.command, workers=workers, environment=environment, niceness=niceness
            )
            began(process)
            process = self._wait_until_ready(process, deadline)
            url = f"http://127.0.0.1:{process.port}"
            if keys is not None:
                guard.require_closed(url, keys)
            golden_samples.check_answers(self.package, self.tag, url, key, deadline)
            self.say(f"{self.tag} answered its {len(self.package.golden)} golden samples")
            if lost := processes.ask(process, "status")["lost"]:
                raise ImagoError(f"{lost} of its workers died while it was tried")
            grace = processes.GRACE_SECONDS
            yield process
        except BaseException as error:
            if process is not None:
                self._give_up(process, grace)
            if isinstance(error, ImagoError | httpx.HTTPError | OSError):
                log = f" (its log: {process.folder}/server.log)" if process else ""
                raise DeploymentFailed(f"{self.failed}: {error}{log}") from error
            raise

    def _wait_until_ready(self, process: Process, deadline: float) -> Process:
        begun = told = time.monotonic()
        while True:
            if not processes.alive(process):
                raise ImagoError("its server process ended while starting")
            try:
                answer = processes.ask(process, "status", timeout=5)
                process = process.model_copy(update={"port": answer["port"]})
                ready = f"{answer['ready']} of {answer['wanted']} workers ready, "
                if answer["lost"]:
                    raise ImagoError(f"{answer['lost']} of its workers died while it was started")
                if answer["ready"] == answer["wanted"] and health.answers(f"http://127.0.0.1:{process.port}/readyz"):
                    return process
            except processes.NoAnswerError:
                ready = ""  # it has only just been started
            moment = time.monotonic()
            if moment > deadline:
                raise ImagoError(f"it was not ready within {moment - begun:.0f} s (deploy.timeout_seconds)")
            if moment - told >= PROGRESS_SECONDS:
                told = moment
                self.say(f"waiting for {self.tag}: {ready}{moment - begun:.0f} s of at most {deadline - begun:.0f} s")
            time.sleep(0.1)

    def _give_up(self, process: Process, grace: float) -> None:
        """Show the end of its log, and end it."""
        for line in processes.log_tail(process):
            self.say(f"| {line}")
        processes.end(process, grace=grace)


def worker_count(config: DeployConfig) -> int:
    """Return how many workers a version is started with: as many as asked for, else one a core that there is for us."""
    if config.workers is not None:
        return config.workers
    from joblib import cpu_count  # which knows of affinity and of a container's limits

    return min(int(cpu_count()), MOST_WORKERS)


def environment(tag: str, config: DeployConfig) -> dict[str, str]:
    """Return what the service reads at its start."""
    telemetry.switch_off()
    model = deployment.model_of(tag)
    return {
        "BENTOML_HOME": str(home.home() / "bentoml"),
        **os.environ,
        "IMAGO_HOME": str(home.home()),
        "IMAGO_PREDICTIONS": str(home.home() / "predictions.sqlite"),
        "IMAGO_MODEL_VERSION": model["version"],
        "IMAGO_TOP_K": str(config.top_k),
        "IMAGO_MAX_UPLOAD_BYTES": str(config.max_upload_bytes),
        "IMAGO_MAX_PIXELS": str(config.max_pixels),
        "IMAGO_MAX_CONNECTIONS": str(config.max_connections),
        "IMAGO_HOSTS": " ".join(_names(config)),
        "IMAGO_CORS_ORIGINS": " ".join(config.cors_origins),
        "IMAGO_TRUSTED_PROXIES": " ".join(config.trusted_proxies),
        "IMAGO_SHELF": str(shelf.of(**model)) if config.reports else "",
    }


def _names(config: DeployConfig) -> list[str]:
    """Return by which names it may be asked for; none where that may be any, or is the affair of a proxy."""
    closed = guard.is_loopback(config.host) and not config.trusted_proxies
    return sorted({host_name.LOCAL, config.host.lower(), *config.hosts}) if config.hosts or closed else []
