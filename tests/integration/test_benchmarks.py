"""The benchmarks run, and print one JSON line a figure of the shape that others rely on."""

import json

import pytest

from benchmarks import Figure, compare, data, serving, show, training


def test_a_figure_is_ours_beside_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    spent: list[str] = []
    figure = compare("some", lambda: spent.append("ours"), lambda: spent.append("theirs"), rounds=2, per=4)
    assert spent == ["ours", "theirs"] * 3
    show([figure, Figure("other", 0.5, "higher", 1.0, 2.0, "pictures a second")])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(first) == ["name", "ratio", "better", "ours", "theirs", "unit"]
    assert second == {
        "name": "other", "ratio": 0.5, "better": "higher", "ours": 1.0, "theirs": 2.0, "unit": "pictures a second",
    }  # fmt: skip


@pytest.mark.slow
def test_every_benchmark_measures_both_sides() -> None:
    figures = [
        *data.figures(pictures=100, few=60, many=120),
        *serving.figures(rounds=2, image_size=64),
        *training.figures(per_class=8, image_size=64, rounds=1),
    ]
    assert [figure.name for figure in figures] == [
        "data.load_and_check",
        "data.beside_cleanvision",
        "data.read_stored",
        "data.load_again",
        "data.near_duplicates_growth",
        "data.peak_memory",
        "serving.picture",
        "serving.batch_of_8",
        "training.epoch",
        "training.head",
    ]
    for figure in figures:
        assert min(figure.ours, figure.theirs) > 0, figure
        assert figure.ratio == pytest.approx(figure.ours / figure.theirs, rel=0.05)
