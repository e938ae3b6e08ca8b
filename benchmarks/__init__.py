"""How fast Imago is beside the plain way of doing the same, measured side by side in one run.

Each module is a command, such as `python -m benchmarks.data`, and prints one JSON line a figure.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin measure the other programs


@dataclass(frozen=True)
class Figure:
    """Ours beside theirs, both in `unit`; `ratio` is ours / theirs."""

    name: str
    ratio: float
    better: Literal["higher", "lower"]
    ours: float
    theirs: float
    unit: str


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    per: int,
    clock: Callable[[], float] = time.perf_counter,
    warm: bool = True,
) -> Figure:
    """Time both in turn, so that what else the machine does meets both, and compare the medians.

    `per` is how many pictures a call works through; with `warm`, the first call of each is not counted.
    """
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + warm):
        for call, seconds in zip((ours, theirs), spent, strict=True):
            begun = clock()
            call()
            if turn or not warm:
                seconds.append(clock() - begun)
    mine, other = (1000 * median(seconds) / per for seconds in spent)
    return Figure(name, round(mine / other, 4), "lower", round(mine, 4), round(other, 4), "ms a picture")


def show(figures: Iterable[Figure]) -> None:
    """Print one JSON line a figure, as each is measured."""
    for figure in figures:
        print(json.dumps(asdict(figure)), flush=True)
