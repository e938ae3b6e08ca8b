"""Says how long work goes: a bar on a terminal, plain lines elsewhere; on standard error, so results stay clean."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from imago.history import EpochResult


class Reporter(Protocol):
    """Whoever is told of the work: `start` opens a stretch, `advance` counts, `epoch` closes one, `note` says more.

    Of an epoch `start` is told how many follow it and what the one before gave, and `advance` each step's loss.
    """

    def start(self, what: str, total: int, *, epochs_left: int = 0, last: EpochResult | None = None) -> None: ...
    def advance(self, count: int = 1, loss: float | None = None) -> None: ...
    def epoch(self, result: EpochResult) -> None: ...
    def note(self, text: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Stretch:
    """Work at hand, counted in pictures: how far it is, how fast it goes, and how long it will take."""

    def __init__(
        self, what: str, total: int, epochs_left: int, last: EpochResult | None, clock: Callable[[], float]
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self._epochs_left, self._last = epochs_left, last
        self._loss, self._steps = 0.0, 0
        self._clock = clock
        self._begun = self._counted = clock()

    def advance(self, count: int, loss: float | None) -> None:
        self.done += count
        self._counted = self._clock()
        if loss is not None:
            self._loss, self._steps = self._loss + loss, self._steps + 1

    @property
    def speed(self) -> float:
        """Pictures a second, until the last one that was counted."""
        return self.done / max(self._counted - self._begun, 1e-9)

    def figures(self) -> list[str]:
        """Return what there is to say: the mean loss so far, the last validation accuracy, the speed, the time left."""
        if not self.done:
            return []
        said = [f"loss {self._loss / self._steps:.3f}"] if self._steps else []
        if self._last is not None:
            said.append(f"validation accuracy {self._last.val_accuracy:.3f}")
        left = max(0.0, (self.total - self.done) / self.speed - (self._clock() - self._counted))
        said += [_speed(self.speed), f"{_minutes(left)} left"]
        if self._epochs_left:
            whole = self._last.seconds if self._last and self._last.epoch else self.total / self.speed
            said.append(f"{_minutes(left + self._epochs_left * whole)} in all")
        return said


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


def sentence(result: EpochResult, speed: float | None = None) -> str:
    """Return an epoch's figures on one line; `speed` in pictures a second."""
    name = "head" if result.epoch == 0 else f"epoch {result.epoch}"
    fast = f", {_speed(speed)}" if speed else ""
    return (
        f"{name}: loss {result.train_loss:.3f}, validation loss {result.val_loss:.3f}, "
        f"validation accuracy {result.val_accuracy:.3f} ({result.seconds:.0f} s{fast})"
    )


def _speed(speed: float) -> str:
    return f"{speed:.0f} pictures/s" if speed >= 10 else f"{speed:.1f} pictures/s"


def _minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Lines:
    """A line an epoch, and one now and then in a stretch that takes long."""

    EVERY = 20.0  # seconds

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stretch: Stretch | None = None
        self._told = clock()

    def start(self, what: str, total: int, *, epochs_left: int = 0, last: EpochResult | None = None) -> None:
        self._stretch = Stretch(what, total, epochs_left, last, self._clock)
        self._told = self._clock()

    def advance(self, count: int = 1, loss: float | None = None) -> None:
        if self._stretch is None:
            return
        self._stretch.advance(count, loss)
        if self._clock() - self._told >= self.EVERY:
            self._told = self._clock()
            far = f"{self._stretch.done} of {self._stretch.total}"
            self.note(f"{self._stretch.what}: {', '.join([far, *self._stretch.figures()])}")

    def epoch(self, result: EpochResult) -> None:
        done, self._stretch = self._stretch, None
        self.note(sentence(result, done.speed if done else None))

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
    """A bar for the stretch at hand with its figures below, and a line above it for each epoch done."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream)
        self._clock = clock
        self._stretch: Stretch | None = None
        self._live = Live(get_renderable=self._drawn, console=self._console, transient=True, refresh_per_second=5)

    def start(self, what: str, total: int, *, epochs_left: int = 0, last: EpochResult | None = None) -> None:
        self._stretch = Stretch(what, total, epochs_left, last, self._clock)

    def advance(self, count: int = 1, loss: float | None = None) -> None:
        if self._stretch is not None:
            self._stretch.advance(count, loss)

    def epoch(self, result: EpochResult) -> None:
        done, self._stretch = self._stretch, None
        self.note(sentence(result, done.speed if done else None))

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, markup=False)

    def _drawn(self) -> RenderableType:
        stretch = self._stretch
        if stretch is None:
            return Text()
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"  {stretch.what}", ProgressBar(stretch.total, stretch.done, width=40), f"{stretch.done}/{stretch.total}"
        )
        return Group(bar, Text(f"  {', '.join(stretch.figures())}", style="dim"))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
