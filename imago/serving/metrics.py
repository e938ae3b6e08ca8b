"""Counts for Prometheus, summed over the workers of one server; no label that a client could choose."""

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import psutil

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

Stage = Literal["read", "wait", "decode", "forward", "answer", "explain_wait", "explain"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_FILES = ("counter", "histogram", "gauge_livesum", "gauge_max")  # as prometheus_client names them
_FILE_BYTES = 1 << 18  # some 1,500 classes and versions
_CLOCK_STEP = 5.0  # seconds that a machine's clock may have been set by, while a server runs
_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The endpoint's counters and histograms."""

    def __init__(self, registry: "CollectorRegistry | None" = None, *, shared: bool = True) -> None:
        """`shared` says whether the other workers' counts are to be had, where there are others."""
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        self.registry = registry or REGISTRY
        self.shared = shared
        self.requests = Counter(
            "imago_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "imago_request_seconds",
            "Seconds from a request's first byte to the end of its answer, by route.",
            ["route"],
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.predictions = Counter(
            "imago_predictions", "Predictions by model version and label.", ["version", "label"], registry=self.registry
        )
        self.rejected = Counter(
            "imago_rejected", "Predictions that the model was not sure of.", ["version"], registry=self.registry
        )
        self.unreadable = Counter(
            "imago_unreadable", "Pictures that could not be read, by reason.", ["code"], registry=self.registry
        )
        self.lost = Counter(
            "imago_predictions_lost", "Predictions that could not be kept for monitoring.", registry=self.registry
        )
        self.lines_lost = Counter("imago_log_lines_lost", "Lines that the log could not take.", registry=self.registry)
        self.shadow = Counter(
            "imago_shadow_requests",
            "Requests that a shadow was asked, by its version and what came of it; dropped: too many were waiting.",
            ["version", "outcome"],
            registry=self.registry,
        )
        self.shadow_lost = Counter(
            "imago_shadow_answers_lost",
            "What came of asking a shadow, where it could not be kept for the comparison.",
            registry=self.registry,
        )
        stages = Histogram(
            "imago_stage_seconds",
            "Seconds of a prediction's stages: read its body, wait for a turn, decode, forward, answer; and of a heat "
            "map's: explain_wait, explain.",
            ["stage"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.stages: dict[Stage, Histogram] = {stage: stages.labels(stage) for stage in STAGES}
        self.batch = Histogram(
            "imago_batch_pictures",
            "Pictures in one forward pass.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self._queues = Gauge(
            "imago_queue_length",
            "Requests that were read whole and are not yet answered, by queue.",
            ["queue"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._model = Gauge(
            "imago_model_info",
            "The model that is served; always 1.",
            ["name", "version", "architecture", "fingerprint"],
            multiprocess_mode="max",
            registry=self.registry,
        )

    def tell_model(self, *, name: str, version: str, architecture: str, fingerprint: str) -> None:
        self._model.labels(name, version, architecture, fingerprint).set(1)

    def queue(self, name: str) -> "Gauge":
        """Return the gauge of one queue's length."""
        return self._queues.labels(name)

    def ran(self, pictures: int, decode_seconds: float, forward_seconds: float) -> None:
        """Take note of one forward pass, and of the pictures that were decoded for it, as Runtime.predict tells it."""
        self.stages["decode"].observe(decode_seconds)
        self.stages["forward"].observe(forward_seconds)
        self.batch.observe(pictures)

    def render(self) -> tuple[bytes, str]:
        """Return what Prometheus reads, and its content type; every worker of the server is in it."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self.registry
        if folder := os.environ.get(_VARIABLE):
            _forget_dead(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def _forget_dead(folder: Path) -> None:
    """Forget how many requests a worker had under way when it was killed: nothing else would ever say they are over."""
    from prometheus_client.multiprocess import mark_process_dead

    for pid in _writers(folder, "gauge_live*.db"):
        if not psutil.pid_exists(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _writers(folder: Path, files: str = "*.db") -> set[int]:
    """Return the numbers of the processes that have counted there, alive or not."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob(files)}


def share_between_workers(folder: Path) -> bool:
    """Let the workers of this process's parent count in one place, apart from any other version's.

    BentoML's own folder is one for all servers of a user, and each that starts empties it. Call this before
    prometheus_client is first imported. False where the folder cannot be made, or the disk is full: this worker then
    counts for itself.
    """
    if "prometheus_client" in sys.modules and not os.environ.get(_VARIABLE):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name.isdigit() and not any(map(psutil.pid_exists, {int(old.name), *_writers(old)})):
                shutil.rmtree(old, ignore_errors=True)  # else workers serve on whose supervisor was lost
        ours = folder / str(os.getppid())
        with (folder / "lock").open("wb") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # workers start together
            if ours.exists() and ours.stat().st_mtime < psutil.Process(os.getppid()).create_time() - _CLOCK_STEP:
                shutil.rmtree(ours)  # another server's, which had the same number
            ours.mkdir(exist_ok=True)
        _reserve(ours)
    except OSError:
        os.environ.pop(_VARIABLE, None)
        return False
    os.environ[_VARIABLE] = str(ours)
    return True


def _reserve(folder: Path) -> None:
    """Take the room that this process's counts will need; raises OSError where there is none.

    prometheus_client maps files with holes, and a full disk kills whoever touches a hole.
    """
    for kind in _FILES:
        file = folder / f"{kind}_{os.getpid()}.db"
        try:
            with file.open("ab") as sink:
                if not sink.tell():
                    sink.write(bytes(_FILE_BYTES))
        except OSError:
            file.unlink(missing_ok=True)
            raise
