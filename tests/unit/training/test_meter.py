"""What a training spent is counted where it was spent."""

import multiprocessing
import time
from pathlib import Path

import pytest

from imago.config import TrainingConfig
from imago.training.meter import Meter, gpu_power_limit

CONFIG = TrainingConfig(watts_per_core=7, grid_intensity=50)


def _work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_this_process_computes_is_counted_with_the_rates_that_were_configured() -> None:
    meter, begun = Meter(CONFIG), time.monotonic()
    _work(0.2)
    spent = meter.read()
    assert 0.17 <= spent.cpu_seconds < 2  # the clock of the CPU ticks every 10 ms
    assert 0.17 <= spent.wall_seconds <= time.monotonic() - begun
    assert (spent.watts_per_core, spent.grid_intensity) == (7, 50)


def test_what_children_computed_is_counted_when_they_have_ended() -> None:
    meter = Meter(CONFIG)
    child = multiprocessing.get_context("fork").Process(target=_work, args=(0.3,))
    child.start()
    child.join()
    assert meter.read().cpu_seconds >= 0.27


def test_a_forked_process_goes_on_from_what_was_read_before() -> None:
    meter = Meter(CONFIG)
    _work(0.3)
    before = meter.read().cpu_seconds
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(meter.read().cpu_seconds))
    child.start()
    told = receiver.recv()
    child.join()
    assert before <= told < before + 0.25


def test_what_was_spent_before_an_interruption_is_added() -> None:
    meter = Meter(CONFIG)
    meter.before = {"wall_seconds": 1000.0, "cpu_seconds": 2000.0, "gpu_seconds": 3000.0}
    spent = meter.read()
    assert 1000 <= spent.wall_seconds < 1100
    assert 2000 <= spent.cpu_seconds < 2100
    assert spent.gpu_seconds >= 3000


@pytest.mark.parametrize(
    ("script", "watts"),
    [("echo 700.00; echo 400.00", 700.0), ("echo '[N/A]'", None), ("exit 9", None), ("true", None), (None, None)],
)
def test_a_gpu_has_the_power_limit_that_its_driver_tells(
    script: str | None, watts: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_power_limit() == watts
