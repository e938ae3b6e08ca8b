"""Draws how a training and a sweep went, as SVG; figures are objects here, and none is pyplot's."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import blended_transform_factory, offset_copy

from imago.history import EpochResult

_INK, _SOFT, _LINE = "#1d2230", "#596174", "#dfe0e4"
_BLUE, _RUST = "#2f5fd0", "#b5421d"
_INCH = 25.4  # millimetres


class Tried(Protocol):
    """A trial of a sweep: its validation accuracy, and whether it is `complete`, was `pruned`, or `failed`."""

    @property
    def number(self) -> int: ...
    @property
    def val_accuracy(self) -> float: ...
    @property
    def state(self) -> str: ...


def draw_curves(history: Sequence[EpochResult], best_epoch: int, *, title: str, subtitle: str) -> str:
    """Draw losses and validation accuracy by epoch, the one that was kept marked; epoch 0 is the head alone."""
    figure = Figure(figsize=(240 / _INCH, 100 / _INCH), layout="constrained")
    losses, accuracy = (_styled(axes) for axes in figure.subplots(1, 2))
    epochs = [result.epoch for result in history]
    _line(losses, epochs, [result.train_loss for result in history], _BLUE, "training")
    _line(losses, epochs, [result.val_loss for result in history], _RUST, "validation")
    _line(accuracy, epochs, [result.val_accuracy for result in history], _RUST, "validation")
    losses.legend(frameon=False, labelcolor=_SOFT, fontsize=9)
    losses.set_title("Loss", loc="left", color=_INK, fontsize=10)
    accuracy.set_title("Accuracy", loc="left", color=_INK, fontsize=10)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (losses, accuracy):
        axes.set_xlabel("epoch", color=_SOFT)
        axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "head" if value == 0 else f"{value:.0f}"))
        axes.axvline(best_epoch, color=_SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    for result in history:
        if result.epoch == best_epoch:
            accuracy.annotate(
                f"kept: {result.val_accuracy:.1%}", (best_epoch, result.val_accuracy), (0, 8), color=_INK,
                textcoords="offset points", ha="center", va="bottom", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
    accuracy.margins(y=0.18)
    return _svg(figure, title, subtitle)


def draw_trials(trials: Sequence[Tried], *, title: str, subtitle: str) -> str:
    """Draw each trial's validation accuracy in the order of trying, with the best so far as a line."""
    figure = Figure(figsize=(180 / _INCH, 100 / _INCH), layout="constrained")
    axes = _styled(figure.subplots())
    complete = [trial for trial in trials if trial.state == "complete"]
    best = accumulate((trial.val_accuracy if trial.state == "complete" else math.nan for trial in trials), np.fmax)
    axes.step(
        [trial.number for trial in trials], [*best], color=_BLUE, linewidth=1.5, where="post", label="best so far"
    )
    axes.scatter(
        [trial.number for trial in complete],
        [trial.val_accuracy for trial in complete],
        color=_BLUE,
        label="trained to the end",
    )
    if pruned := [trial for trial in trials if trial.state == "pruned"]:
        best_seen = [trial.val_accuracy for trial in pruned]
        axes.scatter([trial.number for trial in pruned], best_seen, color=_SOFT, marker="x", label="given up")
    if failed := [trial.number for trial in trials if trial.state == "failed"]:
        at_foot = blended_transform_factory(axes.transData, axes.transAxes)  # it has no accuracy
        axes.scatter(failed, [0.03] * len(failed), color=_RUST, marker="x", transform=at_foot, label="failed")
    axes.legend(frameon=False, labelcolor=_SOFT, fontsize=9)
    axes.set_xlabel("trial", color=_SOFT)
    axes.set_ylabel("validation accuracy", color=_SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.margins(0.06, 0.12)
    return _svg(figure, title, subtitle)


def draw_importance(importance: Mapping[str, float], *, title: str, subtitle: str) -> str:
    """Draw how much each key had to do with doing well, the most important on top."""
    figure = Figure(figsize=(180 / _INCH, (38 + 9 * len(importance)) / _INCH), layout="constrained")
    axes = _styled(figure.subplots())
    keys = sorted(importance, key=lambda key: importance[key])
    bars = axes.barh(keys, [importance[key] for key in keys], color=_BLUE, height=0.6)
    axes.bar_label(bars, [f"{importance[key]:.0%}" for key in keys], padding=4, color=_INK, fontsize=9)
    axes.set_xlim(0, 1.1 * max(importance.values()) or 1.0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.tick_params(axis="y", labelcolor=_INK)
    return _svg(figure, title, subtitle)


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], colour: str, label: str) -> None:
    drawn = [value if math.isfinite(value) else math.nan for value in values]
    axes.plot(epochs, drawn, color=colour, label=label, linewidth=1.5, marker="o", markersize=3.5)


def _styled(axes: Axes) -> Axes:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(color=_LINE, labelcolor=_SOFT, labelsize=9, left=False)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _svg(figure: Figure, title: str, subtitle: str) -> str:
    figure.suptitle(f"{title}\n", x=0.01, ha="left", color=_INK, fontsize=12, fontweight="bold", parse_math=False)
    below = offset_copy(figure.transFigure, figure, y=-21, units="points")
    figure.text(0.01, 1.0, subtitle, ha="left", va="top", color=_SOFT, fontsize=9, parse_math=False, transform=below)
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Title": title, "Date": None})
    return sink.getvalue()
