"""Says how long work goes: a bar on a terminal, plain lines elsewhere; on standard error, so results stay clean."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave; epoch 0 is the head fitted on the frozen backbone's features, and the start otherwise."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


class Reporter(Protocol):
    """Whoever is told of the work: `start` opens a stretch, `advance` counts, `epoch` closes one, `note` says more."""

    def start(self, what: str, total: int) -> None: ...
    def advance(self, count: int = 1) -> None: ...
    def epoch(self, result: EpochResult) -> None: ...
    def note(self, text: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def counted(reporting: Reporter, what: str) -> Callable[[int, int], None]:
    """Return what turns `done, total`, told again and again, into one stretch of work."""
    told = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal told
        if not told:
            reporting.start(what, total)
        reporting.advance(done - told)
        told = done

    return on_progress


def reporter(stream: TextIO | None = None) -> Reporter:
    """Return a bar where the stream, standard error unless given, is a terminal; else plain lines."""
    out = stream or sys.stderr
    return Bar(out) if out.isatty() else Lines(out)


def sentence(result: EpochResult) -> str:
    """Return an epoch's figures on one line."""
    name = "head" if result.epoch == 0 else f"epoch {result.epoch}"
    return (
        f"  {name}: loss {result.train_loss:.3f}, validation loss {result.val_loss:.3f}, "
        f"validation accuracy {result.val_accuracy:.3f} ({result.seconds:.0f} s)"
    )


class Lines:
    """A line an epoch, and one now and then in a stretch that takes long."""

    EVERY = 20.0  # seconds

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._what, self._done, self._total = "", 0, 0
        self._begun = self._told = time.monotonic()

    def start(self, what: str, total: int) -> None:
        self._what, self._done, self._total = what, 0, total
        self._begun = self._told = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        moment = time.monotonic()
        if moment - self._told < self.EVERY:
            return
        self._told = moment
        left = (moment - self._begun) * (self._total - self._done) / self._done
        self._stream.write(f"  {self._what}: {self._done} of {self._total}, about {left:.0f} s left\n")
        self._stream.flush()

    def epoch(self, result: EpochResult) -> None:
        self.note(sentence(result).strip())

    def note(self, text: str) -> None:
        self._stream.write(f"  {text}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()


class Bar:
    """A bar for the stretch at hand, and a line above it for each epoch done."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task: TaskID | None = None

    def start(self, what: str, total: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total)

    def advance(self, count: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def epoch(self, result: EpochResult) -> None:
        self.note(sentence(result).strip())

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
