"""What a run says at its end: nothing is cut off, and what it tells to type next fits what came of it."""

import re
from typing import Any

import pytest

from cli import summary


def trained(**changes: Any) -> dict[str, Any]:
    model = {"name": "shapes", "version": "3", "stage": "production", "architecture": "resnet18", "weights": "none"}
    return {
        "pipeline": "training", "status": "completed", "run_id": "1", "stack": "imago-local", "model": model,
        "metrics": {"test_accuracy": 0.9}, "promoted": True, "reason": "First of its name.",
        "endpoint": "http://127.0.0.1:3000", "example": None, "training": {"epochs": 5},
        "data": {"origin": "a test", "found": 9, "quarantined": 0, "classes": 2}, "reports": {}, **changes,
    }  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], outcome: dict[str, Any]) -> str:
    summary.show(outcome)
    return capsys.readouterr().out


def test_a_long_path_is_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a-rather-long-name" * 12 + "/data.html"
    assert path in said(capsys, trained(reports={"data": path}))


def test_figures_are_listed_beside_the_reports(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, trained(reports={"data": "reports/data.html", "curves": "reports/figures/moths-1-curves.svg"}))
    assert re.search(r"^data report +reports/data\.html$", text, re.MULTILINE)
    assert re.search(r"^curves +reports/figures/moths-1-curves\.svg$", text, re.MULTILINE)


def test_what_serves_can_be_asked_watched_and_stopped_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, trained())
    assert "deployment stop --name shapes" in text
    assert "--pipeline monitoring --set model.name=shapes" in text


def test_what_was_not_promoted_is_told_how_to_become_better(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, trained(model={**trained()["model"], "stage": None}, endpoint=None))
    assert "training.epochs=10" in text
    assert "model.weights=hub" in text
    learned = {**trained()["model"], "stage": None, "weights": "checkpoint.safetensors"}
    assert "model.weights=hub" not in said(capsys, trained(model=learned, endpoint=None))
    assert "run.py predict" not in text
    assert "deployment stop" not in text
    probed = said(capsys, trained(model=learned, endpoint=None, training={"epochs": 0}))
    assert "--config finetune" in probed
    assert "training.epochs" not in probed


def test_figures_are_said_as_a_person_would(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"test_accuracy": 0.9, "test_top5": 1.0, "model_bytes": 6.377e6, "parameters": 1_526_000.0, "macs": 4e9}
    text = said(capsys, trained(metrics=metrics))
    for line in (r"test accuracy +0\.9", r"model bytes +6\.4 MB", r"parameters +1\.5 million", r"macs +4\.0 billion"):
        assert re.search(rf"^{line}$", text, re.MULTILINE), line
    assert "top5" not in text
    six = trained(metrics=metrics, data={**trained()["data"], "classes": 6})
    assert re.search(r"^test top5 +1$", said(capsys, six), re.MULTILINE)


@pytest.mark.parametrize(("verdict", "next_"), [("drifted", "--data FOLDER --set model.name=shapes"), ("stable", None)])
def test_after_monitoring_only_a_drift_asks_for_training(
    capsys: pytest.CaptureFixture[str], verdict: str, next_: str | None
) -> None:
    outcome = {**trained(), "pipeline": "monitoring", "verdict": verdict, "window": {"count": 3}, "metrics": {}}
    del outcome["data"]
    text = said(capsys, outcome)
    assert (next_ in text) if next_ else ("Next:" not in text)


def test_after_a_sweep_the_best_configuration_is_named_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = {**trained(), "pipeline": "sweep", "trials": [], "best": {}, "metrics": {}}
    text = said(capsys, {**outcome, "reports": {"configuration": "/my reports/best.yaml"}})
    assert "--pipeline training --config '/my reports/best.yaml'" in text


def test_a_sweep_that_cannot_tell_what_it_depended_on_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    swept = {**trained(), "pipeline": "sweep", "trials": [], "best": {}, "metrics": {}, "importance": {}}
    swept["reports"] = {"configuration": "/best.yaml"}
    assert "raise sweep.trials" in said(capsys, {**swept, "note": "there are 4: raise sweep.trials"})
    assert "note" not in said(capsys, {**swept, "note": None})


def test_what_could_not_be_read_is_not_counted_as_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = {**trained(), "pipeline": "inference", "count": 123, "failed": 1, "metrics": {}}
    del outcome["data"]
    assert "122 pictures predicted of 123; 1 could not be read" in said(capsys, outcome)


def test_that_nothing_serves_is_said_with_what_starts_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, trained(model={**trained()["model"], "stage": None}, endpoint=None, idle=True))
    assert "none runs: `python run.py deployment start --name shapes`" in text
    assert "none runs" not in said(capsys, trained(idle=False))


def test_a_challenger_that_was_not_promoted_is_said_to_be_a_shadow(capsys: pytest.CaptureFixture[str]) -> None:
    model = trained()["model"] | {"stage": None}
    shadow = {"model": {"name": "shapes", "version": "4"}, "share": 0.1, "running": True, "reason": None}
    text = said(capsys, trained(model=model, shadow=shadow))
    assert re.search(r"^shadow +version 4 is asked 10% of the same, heard by nobody$", text, re.MULTILINE)
    assert "python run.py deployment shadow --name shapes" in text
    assert "deployment shadow" not in said(capsys, trained(model=model, shadow=None))
