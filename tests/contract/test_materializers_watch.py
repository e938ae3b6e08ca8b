"""Predictions and drift reports come back from an artifact store as they went in, and half of one is not read."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from zenml.enums import VisualizationType

from imago.errors import ImagoError
from imago.monitoring.drift import DriftReport, DriftTest, Window
from imago.serving.batch import SCHEMA, Predictions
from materializers.drift_report import DriftReportMaterializer
from materializers.predictions import PredictionsMaterializer


@pytest.fixture
def predictions() -> Predictions:
    rows = [
        {"path": "a.jpg", "label": "atlas", "probability": 0.75, "rejected": False},
        {"path": "b.jpg", "label": "luna", "probability": 0.25, "rejected": True, "reason": "unsure"},
        {"path": "c.jpg", "reason": "it is not one of JPEG"},
    ]
    return Predictions(pa.Table.from_pylist(rows, schema=SCHEMA), {"a.jpg": b"\xff\xd8one", "b.jpg": b"two"}, "moths")


@pytest.fixture
def report() -> DriftReport:
    test = DriftTest(
        name="brightness", statistic=0.4, threshold=0.2, p_value=1e-9, effect_size=0.4, drifted=True, sentence="darker"
    )
    return DriftReport(
        verdict="drifted",
        sentence="1 of 9 tests found drift.",
        window=Window(since="2026-01-01T00:00:00+00:00", until="2026-01-02T00:00:00+00:00", count=200),
        tests=(test,),
        accuracy=None,
        feedback=0,
        estimated_accuracy=0.8,
        evidently={"metrics": [{"value": 0.5}]},
        page="<!DOCTYPE html><h1>Drifted é</h1>",
    )


def test_predictions_come_back_as_they_were(predictions: Predictions, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    PredictionsMaterializer(uri).save(predictions)
    loaded = PredictionsMaterializer(uri).load(Predictions)
    assert loaded.table.equals(predictions.table, check_metadata=True)
    assert loaded.thumbnails == predictions.thumbnails
    assert loaded.model == "moths"
    assert loaded.failed == 1


def test_predictions_are_shown_as_their_page(predictions: Predictions, tmp_path: Path) -> None:
    materializer = PredictionsMaterializer(str(tmp_path / "artifact"))
    materializer.save(predictions)
    [(file, kind)] = materializer.save_visualizations(predictions).items()
    assert kind == VisualizationType.HTML
    assert Path(file).read_text(encoding="utf-8") == predictions.page


def test_the_metadata_of_predictions_counts_them(predictions: Predictions, tmp_path: Path) -> None:
    metadata = PredictionsMaterializer(str(tmp_path)).extract_metadata(predictions)
    assert metadata == {"model": "moths", "count": 3, "failed": 1, "rejected": 1}


def test_equal_predictions_have_equal_hashes_and_others_have_others(predictions: Predictions, tmp_path: Path) -> None:
    materializer = PredictionsMaterializer(str(tmp_path))
    again = Predictions(pa.concat_tables([predictions.table[:1], predictions.table[1:]]), {}, "moths")
    assert materializer.compute_content_hash(predictions) == materializer.compute_content_hash(again)
    fewer = Predictions(predictions.table[:2], {}, "moths")
    assert materializer.compute_content_hash(predictions) != materializer.compute_content_hash(fewer)


def test_a_drift_report_comes_back_as_it_was(report: DriftReport, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    DriftReportMaterializer(uri).save(report)
    assert DriftReportMaterializer(uri).load(DriftReport) == report


def test_a_drift_report_is_stored_as_json_and_shown_as_its_page(report: DriftReport, tmp_path: Path) -> None:
    materializer = DriftReportMaterializer(str(tmp_path / "artifact"))
    materializer.save(report)
    [(file, kind)] = materializer.save_visualizations(report).items()
    assert kind == VisualizationType.HTML
    assert Path(file).read_text(encoding="utf-8") == report.page
    kept = json.loads((tmp_path / "artifact" / "drift.json").read_text(encoding="utf-8"))
    assert kept["evidently"] == report.evidently
    assert kept["tests"][0]["name"] == "brightness"


def test_the_metadata_of_a_drift_report_names_what_drifted(report: DriftReport, tmp_path: Path) -> None:
    metadata = DriftReportMaterializer(str(tmp_path)).extract_metadata(report)
    assert metadata == {"verdict": "drifted", "count": 200, "drifted": ["brightness"], "estimated_accuracy": 0.8}


@pytest.mark.parametrize("file", ["complete.json", "predictions.parquet"])
def test_predictions_that_are_not_whole_are_not_read(predictions: Predictions, tmp_path: Path, file: str) -> None:
    uri = tmp_path / "artifact"
    PredictionsMaterializer(str(uri)).save(predictions)
    (uri / file).unlink()
    with pytest.raises(ImagoError):
        PredictionsMaterializer(str(uri)).load(Predictions)


def test_a_changed_drift_report_is_not_read(report: DriftReport, tmp_path: Path) -> None:
    uri = tmp_path / "artifact"
    DriftReportMaterializer(str(uri)).save(report)
    (uri / "drift.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ImagoError, match="not what was stored"):
        DriftReportMaterializer(str(uri)).load(DriftReport)
