"""Figures show the figures they are given, and are whole SVG files that name nothing from elsewhere."""

import re
import subprocess
import sys
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from imago.figures import draw_curves, draw_importance, draw_trials
from imago.history import EpochResult
from imago.home import ROOT

HISTORY = [
    EpochResult(0, 0.9, 1.4, 0.62, 1.0),
    *(EpochResult(n, 2.0 / n, 1.5 / n, 0.7 + n / 40, 3.0) for n in (1, 2, 3)),
]
NAN, INFINITY = float("nan"), float("inf")


class Trial(NamedTuple):
    number: int
    val_accuracy: float
    state: str = "complete"


def texts(svg: str) -> list[str]:
    """Return what is written in a figure, which matplotlib draws as outlines with the text as a comment."""
    ET.fromstring(svg)
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.DOTALL)]


def markers(svg: str) -> int:
    return len(re.findall(r"<use [^>]*style=\"fill: #(?:2f5fd0|b5421d); stroke: #(?:2f5fd0|b5421d)", svg))


def test_curves_show_every_epoch_the_head_first_and_which_was_kept() -> None:
    svg = draw_curves(HISTORY, 2, title="moths version 3, resnet18", subtitle="Kept: epoch 2")
    written = texts(svg)
    assert {"moths version 3, resnet18", "Kept: epoch 2", "Loss", "Accuracy", "training", "validation"} <= {*written}
    assert "kept: 75.0%" in written
    assert [text for text in written if text in {"head", "0", "1", "2", "3"}][:4] == ["head", "1", "2", "3"]
    assert markers(svg) == 3 * len(HISTORY) + 2  # and two in the legend


def test_a_loss_that_is_no_number_is_left_out_and_the_rest_drawn() -> None:
    broken = [*HISTORY, EpochResult(4, NAN, INFINITY, 0.2, 3.0)]
    svg = draw_curves(broken, 2, title="moths", subtitle="")
    assert markers(svg) == 3 * len(HISTORY) + 2 + 1


def test_the_head_alone_is_one_point_a_curve() -> None:
    svg = draw_curves(HISTORY[:1], 0, title="moths", subtitle="")
    assert "kept: 62.0%" in texts(svg)
    assert "head" in texts(svg)


def test_trials_that_failed_do_not_stretch_the_scale() -> None:
    trials = [Trial(0, 0.80), Trial(1, 0.84), Trial(2, 0.0, "failed"), Trial(3, 0.78, "pruned"), Trial(4, 0.82)]
    svg = draw_trials(trials, title="Trials", subtitle="Best: trial 1")
    written = texts(svg)
    assert {"Trials", "Best: trial 1", "best so far", "trained to the end", "given up", "failed"} <= {*written}
    shares = [float(text.rstrip("%")) for text in written if text.endswith("%")]
    assert min(shares) > 70
    line = re.search(r'<path d="(M[^"]*)" clip-path="[^"]*" style="fill: none; stroke: #2f5fd0', svg)
    assert line
    assert line[1].count("L") == 2 * 4  # a step to each of the other trials, also those that did not end
    assert "failed" not in texts(draw_trials(trials[:2], title="Trials", subtitle=""))


def test_importance_names_each_key_with_its_share_the_first_on_top() -> None:
    svg = draw_importance({"training.batch_size": 0.2, "training.learning_rate": 0.8}, title="What", subtitle="")
    written = texts(svg)
    assert [text for text in written if text in {"80%", "20%"}] == ["20%", "80%"]  # from below
    assert {"training.batch_size", "training.learning_rate"} <= {*written}


@pytest.mark.parametrize("title", ["<script>alert(1)</script>", "50 $\\frac{1}{2}$ -- moths"])
def test_a_title_is_text_and_nothing_else(title: str) -> None:
    svg = draw_importance({"training.epochs": 1.0}, title=title, subtitle=title)
    assert "<script" not in svg
    ET.fromstring(svg)


def test_drawing_leaves_pyplot_and_torch_alone() -> None:
    code = (
        "import sys; from imago.figures import draw_importance; draw_importance({'a': 1.0}, title='', subtitle=''); "
        "print([name for name in ('matplotlib.pyplot', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
