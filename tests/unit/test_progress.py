"""What is said while work goes on: how far, how fast, how well, and how long it will take."""

import io
import re

import pytest

from imago.history import EpochResult
from imago.progress import Bar, Lines, Reporter, counted, reporter

HEAD = EpochResult(0, 0.9, 1.4, 0.620, 2.0)
FIRST = EpochResult(1, 1.5, 1.2, 0.812, 40.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_gets_a_bar_and_anything_else_lines() -> None:
    assert isinstance(reporter(Terminal()), Bar)
    assert isinstance(reporter(io.StringIO()), Lines)


def _epoch(reporting: Reporter, clock: Clock, last: EpochResult | None) -> None:
    """Do 300 pictures of 900 in 30 seconds, in the second epoch of six."""
    reporting.start("epoch 2/6", 900, epochs_left=4, last=last)
    for loss in (2.0, 1.5, 1.0):
        clock.now += 10
        reporting.advance(100, loss)


def test_lines_say_loss_accuracy_speed_and_both_times_that_are_left() -> None:
    out, clock = io.StringIO(), Clock()
    _epoch(Lines(out, clock), clock, FIRST)
    assert out.getvalue() == (  # 70 s for the other 700 pictures, and four epochs of 40 s
        "  epoch 2/6: 200 of 900, loss 1.750, validation accuracy 0.812, 10 pictures/s, 1:10 left, 3:50 in all\n"
    )


def test_before_any_whole_epoch_the_one_at_hand_is_the_measure() -> None:
    out, clock = io.StringIO(), Clock()
    _epoch(Lines(out, clock), clock, HEAD)  # whose seconds are not an epoch's
    assert "validation accuracy 0.620, 10 pictures/s, 1:10 left, 7:10 in all" in out.getvalue()


def test_what_is_no_epoch_has_speed_and_time_alone() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    lines.start("features", 12_000)
    clock.now += 25
    lines.advance(50)
    clock.now += 5
    lines.advance(10)  # too soon for another line
    assert out.getvalue() == "  features: 50 of 12000, 2.0 pictures/s, 1:39:35 left\n"


def test_an_epoch_is_closed_with_its_figures_and_the_speed_of_its_training() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    _epoch(lines, clock, None)
    clock.now += 100  # validation
    lines.epoch(EpochResult(2, 1.5, 1.25, 0.75, 130.0))
    lines.epoch(HEAD)
    assert out.getvalue().splitlines()[-2:] == [
        "  epoch 2: loss 1.500, validation loss 1.250, validation accuracy 0.750 (130 s, 10 pictures/s)",
        "  head: loss 0.900, validation loss 1.400, validation accuracy 0.620 (2 s)",
    ]


@pytest.mark.parametrize("columns", ["80", "60"])
def test_the_bar_shows_the_epoch_and_all_its_figures_whatever_the_width(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    out, clock = Terminal(), Clock()
    with Bar(out, clock) as bar:
        _epoch(bar, clock, FIRST)
        bar.note("a note")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    words = " ".join(shown.split())
    assert "epoch 2/6" in words
    assert "300/900" in words
    assert "loss 1.500, validation accuracy 0.812, 10 pictures/s, 1:00 left, 3:40 in all" in words
    assert "a note" in words


def test_the_time_left_goes_down_while_a_step_takes_long() -> None:
    out, clock = Terminal(), Clock()
    bar = Bar(out, clock)
    _epoch(bar, clock, FIRST)
    assert bar._stretch is not None
    assert "1:00 left" in bar._stretch.figures()
    clock.now += 45
    assert "0:15 left" in bar._stretch.figures()
    clock.now += 45
    assert "0:00 left" in bar._stretch.figures()


def test_what_is_told_again_and_again_is_counted_once() -> None:
    out, clock = io.StringIO(), Clock()
    on_progress = counted(Lines(out, clock), "test pictures")
    for done in (32, 64, 90):
        clock.now += 16
        on_progress(done, 90)
    assert out.getvalue() == "  test pictures: 90 of 90, 2.8 pictures/s, 0:00 left\n"
