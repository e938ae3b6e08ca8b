"""The step of a sweep: what was tried before counts, but where the cache is not to be used."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imago.config import Config
from imago.training.sweep import SweepResult, Trial
from steps import search as module
from tests.unit.training.moths import small_moths

TRIALS = [
    Trial(number=0, values={"training.epochs": 1}, val_accuracy=0.5, val_loss=1.0, val_accuracies={1: 0.5}),
    Trial(number=1, values={"training.epochs": 2}, val_accuracy=0.2, val_loss=None, state="pruned"),
    Trial(number=2, values={"training.epochs": 3}, val_accuracy=0.0, val_loss=None, state="failed", reason="no"),
]


class Listening:
    """Stands in for MLflow."""

    def __init__(self) -> None:
        self.children: list[tuple[Any, ...]] = []

    def log_child(self, name: str, _params: object, metrics: object, curves: object, *, status: str) -> None:
        self.children.append((name, metrics, curves, status))


@pytest.mark.parametrize(("enable_cache", "found"), [(False, False), (None, True), (True, True)])
def test_without_the_cache_a_sweep_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enable_cache: bool | None, found: bool
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path))
    run = SimpleNamespace(config=SimpleNamespace(enable_cache=enable_cache))
    monkeypatch.setattr(module, "get_step_context", lambda: SimpleNamespace(pipeline_run=run))
    monkeypatch.setattr(module, "log_metadata", lambda _: None)
    listening, stored = Listening(), []
    monkeypatch.setattr(module, "Tracking", lambda: nullcontext(listening))

    def sweep(*_: object, on_trial: Any, store: Path, **__: object) -> SweepResult:
        stored.append(store.exists())
        store.write_text("what was tried", encoding="utf-8")
        for trial in TRIALS:
            on_trial(trial)
        return SweepResult(trials=tuple(TRIALS), best=TRIALS[0], configuration="")

    monkeypatch.setattr(module, "sweep", sweep)
    for _ in range(2):
        module.search.entrypoint(small_moths(), SimpleNamespace(quarantined=()), Config(), "none")
    assert stored == [False, found]
    assert listening.children[:3] == [
        ("trial 0", {"best_val_accuracy": 0.5}, {"val_accuracy": {1: 0.5}}, "FINISHED"),
        ("trial 1", {"best_val_accuracy": 0.2}, {"val_accuracy": {}}, "KILLED"),
        ("trial 2", {}, {"val_accuracy": {}}, "FAILED"),
    ]
