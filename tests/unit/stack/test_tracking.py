"""What is logged to MLflow: a trial as a run of its own, with how it ended."""

from pathlib import Path

import mlflow
import pytest

from stack import tracking
from stack.tracking import Tracking


def test_a_child_has_its_curve_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_tracker", object)
    monkeypatch.setattr(tracking, "_step_info", lambda: None)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with mlflow.start_run(run_name="sweep") as parent:
            log = Tracking()
            log.log_child("pruned", {"rate": 0.1}, {"best": 0.4}, {"val_accuracy": {1: 0.4, 2: 0.3}}, status="KILLED")
            log.log_child("failed", {"rate": 9}, {}, {"val_accuracy": {}}, status="FAILED")
            assert mlflow.active_run().info.run_id == parent.info.run_id
        client = mlflow.MlflowClient()
        runs = {run.info.run_name: run for run in client.search_runs(["0"])}
        assert {name: run.info.status for name, run in runs.items()} == {
            "sweep": "FINISHED",
            "pruned": "KILLED",
            "failed": "FAILED",
        }
        curve = client.get_metric_history(runs["pruned"].info.run_id, "val_accuracy")
        assert [(metric.step, metric.value) for metric in curve] == [(1, 0.4), (2, 0.3)]
        assert runs["pruned"].data.metrics["best"] == 0.4
        assert runs["failed"].data.metrics == {}
    finally:
        mlflow.set_tracking_uri(before)
