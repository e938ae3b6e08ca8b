"""The benchmarks run, and print one JSON line a figure of the shape that others rely on."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import timm
import torch
import uvicorn
from click.testing import CliRunner
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from timm.models import save_for_hf

import imago.torchvision_compat  # noqa: F401  (before timm)
from benchmarks import Figure, compare, data, load, serving, show, training
from benchmarks.plain import Task
from benchmarks.pressure import Pressure
from tests.unit.training.moths import ARCHITECTURE

PARTS = tuple(part for part in training.OF_ANY + training.OF_PRETRAINED if part != "pipeline")
"""All but what a whole pipeline costs, which is seen in long ones only."""


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
def test_data_is_measured_on_both_sides() -> None:
    figures = list(data.figures(pictures=100, few=60, many=120))
    assert [figure.name for figure in figures] == [
        "data.load_and_check",
        "data.beside_cleanvision",
        "data.read_stored",
        "data.load_again",
        "data.near_duplicates_growth",
        "data.peak_memory",
    ]
    check(figures)


@pytest.mark.slow
def test_the_endpoint_is_measured_beside_services_written_by_hand() -> None:
    asked = serving.Load((ARCHITECTURE,), 64, pictures=((80, 60),), clients=(1, 4), requests=40, rounds=1, workers=2)
    pressed = Pressure(clients=4, seconds=2, minutes=0.1, crowd=8)
    figures = list(serving.figures(asked, rounds=2, how=pressed))
    cpu = [f"{theirs}.{ARCHITECTURE}.80x60.{clients}" for clients in (1, 4) for theirs in ("eager", "onnx", "bare")]
    batches = [(what, size) for what in ("pictures", "graph") for size in (2, 4, 8)]
    assert [figure.name for figure in figures] == [
        "serving.picture",
        "serving.batch_of_8",
        *(f"serving.{what}_in_batches_of_{size}.{ARCHITECTURE}" for what, size in batches),
        *(f"serving.cpu_beside_{name}" for name in cpu),
        f"serving.each_more_worker.{ARCHITECTURE}",
        f"serving.start.{ARCHITECTURE}",
        f"serving.first_worker.{ARCHITECTURE}",
        f"serving.memory_under_load.{ARCHITECTURE}.4",
        "serving.p99_at_four_fifths",
        "serving.p99_at_twice",
        "serving.answered_at_twice",
        "serving.median_2_s_after",
        "serving.memory_in_the_last_minute",
        "serving.lost_in_changes",
        "serving.rollback",
    ]
    *others, lost, rollback = figures
    check([*others, rollback])
    assert (lost.ours, lost.theirs > 0) == (0.0, True)
    assert not any("supervisor.py" in " ".join(one.cmdline()) for one in psutil.Process().children(recursive=True))


def test_a_request_that_is_not_answered_with_200_ends_the_load() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("full", status_code=200 if scope["path"] == "/predict" else 503)(scope, receive, send)

    with serve(refuse) as port:
        request = load.predict_request(b"moth")
        assert len(load.press(port, [request], clients=2, requests=5, seconds=30)) == 5
        with pytest.raises(ExceptionGroup) as failed:
            load.press(port, [request.replace(b"/predict", b"/other00", 1)], clients=2, requests=5, seconds=30)
    assert "503" in str(failed.value.exceptions[0])


@contextmanager
def serve(app: ASGIApp) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield int(door.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
def test_training_is_measured_on_both_sides(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same network whatever ran before: few pictures tell little of flipped labels
        save_for_hf(timm.create_model(ARCHITECTURE, num_classes=3), tmp_path, safe_serialization=True)
    figures = list(training.figures(Task(None, ARCHITECTURE, str(tmp_path), 64, per_class=8), only=PARTS))
    assert [figure.name for figure in figures] == [
        "training.input_pipeline",
        "training.step",
        "training.peak_memory",
        "training.probe",
        "training.probe_again",
        "training.probe_accuracy",
        "training.finetune",
        "training.finetune_accuracy.0",
        "training.finetune_beside_probe",
        "training.finetune_memory",
        "training.calibration_error",
        "training.flipped_labels",
    ]
    check(figures[:-1])
    assert 0 <= figures[-1].ours <= 1  # random weights make a poor witness, who may accuse nobody


def test_training_is_measured_on_what_the_options_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(training, "figures", lambda *arguments: asked.append(arguments) or [])
    options = ("--architecture", ARCHITECTURE, "--image-size", "64", "--only", "pipeline", "--seeds", "1,2")
    assert CliRunner().invoke(training.main, options).exit_code == 0
    assert asked == [(Task(None, ARCHITECTURE, "none", 64), (1, 2), ("pipeline",))]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "probing"), "'probing' is not one of 'input', 'memory', 'pipeline', 'probe'"),
        (("--only", "input", "--only", "probe"), "--only probe: takes pretrained weights, add --weights FOLDER."),
        (("--only", "labels", "--only", "finetune"), "--only labels, finetune: takes pretrained weights"),
        (("--image-size", "16"), "16 is not in the range 32<=x<=1024"),
    ],
)
def test_what_cannot_be_measured_of_training_is_a_usage_error(options: tuple[str, ...], said: str) -> None:
    refused = CliRunner().invoke(training.main, options)
    assert refused.exit_code == 2
    assert said in refused.output


def test_without_weights_training_is_measured_by_the_parts_that_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("input_pipeline", "peak_memory", "pipeline_overhead"):
        monkeypatch.setattr(training, name, lambda _, name=name: [Figure(name, 1.0, "lower", 1.0, 1.0, "ms")])
    measured = [figure.name for figure in training.figures()]
    assert measured == ["input_pipeline", "peak_memory", "pipeline_overhead"]


def check(figures: list[Figure]) -> None:
    for figure in figures:
        assert min(figure.ours, figure.theirs) > 0, figure
        assert figure.ratio == pytest.approx(figure.ours / figure.theirs, rel=0.05)
