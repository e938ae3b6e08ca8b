"""What ZenML keeps of a model and its evaluation comes back whole, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from zenml.enums import VisualizationType
from zenml.materializers.materializer_registry import materializer_registry

from imago.config import EvaluationConfig
from imago.errors import ImagoError
from imago.evaluation.evaluate import evaluate
from imago.evaluation.report import EvaluationReport
from imago.footprint import Spent
from imago.history import EpochResult
from imago.serving.package import FILES, ModelPackage
from imago.serving.runtime import Runtime
from materializers.evaluation_report import EvaluationReportMaterializer
from materializers.model_package import ModelPackageMaterializer
from tests.packages import colour_dataset, make_package, picture_bytes


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return make_package(tmp_path / "package")


@pytest.fixture
def report(package: ModelPackage) -> EvaluationReport:
    config = EvaluationConfig(bootstrap_samples=10, robustness=False)
    return evaluate(package, colour_dataset(mislabelled=2), config, seed=0)


def changed_spec(package: ModelPackage, path: Path, **changes: Any) -> ModelPackage:
    """Copy a package to `path` with another spec."""
    copy = make_package(path)
    copy.onnx.write_bytes(package.onnx.read_bytes())
    spec = package.spec.model_copy(update=changes)
    (path / "spec.json").write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    return ModelPackage(path)


def test_zenml_picks_these_materializers() -> None:
    assert materializer_registry[ModelPackage] is ModelPackageMaterializer
    assert materializer_registry[EvaluationReport] is EvaluationReportMaterializer


def test_a_package_comes_back_as_it_was_and_answers_alike(package: ModelPackage, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    ModelPackageMaterializer(uri).save(package)
    loaded = ModelPackageMaterializer(uri).load(ModelPackage)
    assert loaded.fingerprint == package.fingerprint
    for name in FILES:
        assert (loaded.path / name).read_bytes() == (package.path / name).read_bytes()
    pictures = [picture_bytes("red", seed=1), picture_bytes("blue", seed=2)]
    assert (Runtime(loaded).probabilities(pictures) == Runtime(package).probabilities(pictures)).all()


def test_a_local_package_is_read_where_it_lies(package: ModelPackage, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    ModelPackageMaterializer(uri).save(package)
    assert ModelPackageMaterializer(uri).load(ModelPackage).path == Path(uri)


@pytest.mark.parametrize("name", ["weights.safetensors", "golden/00.png", "complete.json"])
def test_a_package_that_lacks_a_file_is_not_read(package: ModelPackage, tmp_path: Path, name: str) -> None:
    uri = tmp_path / "artifact"
    ModelPackageMaterializer(str(uri)).save(package)
    (uri / name).unlink()
    with pytest.raises(ImagoError, match="run the step that made it again"):
        ModelPackageMaterializer(str(uri)).load(ModelPackage)


def test_a_package_cut_short_is_not_read(package: ModelPackage, tmp_path: Path) -> None:
    uri = tmp_path / "artifact"
    ModelPackageMaterializer(str(uri)).save(package)
    graph = (uri / "model.onnx").read_bytes()
    (uri / "model.onnx").write_bytes(graph[:-1])
    with pytest.raises(ImagoError, match=r"model\.onnx"):
        ModelPackageMaterializer(str(uri)).load(ModelPackage)


def test_half_a_package_is_not_saved(package: ModelPackage, tmp_path: Path) -> None:
    package.reference.unlink()
    uri = tmp_path / "artifact"
    with pytest.raises(ImagoError, match=r"lacks reference\.parquet"):
        ModelPackageMaterializer(str(uri)).save(ModelPackage(package.path))
    assert not uri.exists()


def test_the_hash_of_a_package_is_of_what_it_does_not_of_when(package: ModelPackage, tmp_path: Path) -> None:
    materializer = ModelPackageMaterializer(str(tmp_path / "artifact"))
    known = materializer.compute_content_hash(package)
    materializer.save(package)
    assert materializer.compute_content_hash(materializer.load(ModelPackage)) == known
    spent = Spent(cpu_seconds=9.0, watts_per_core=12, grid_intensity=473)
    timed = {"spent": spent, "history": (EpochResult(1, 0.5, 0.6, 0.7, 8.9),)}
    later = changed_spec(package, tmp_path / "later", created="2027-01-01T00:00:00+00:00", **timed)
    assert materializer.compute_content_hash(later) == known
    warmer = changed_spec(package, tmp_path / "warmer", temperature=2.0)
    assert materializer.compute_content_hash(warmer) != known
    confused = make_package(tmp_path / "confused", confused=True)
    assert materializer.compute_content_hash(confused) != known


def test_a_package_from_before_a_field_was_added_is_read(package: ModelPackage, tmp_path: Path) -> None:
    uri = tmp_path / "artifact"
    added = {"weights_license", "spent", "history"}
    older = package.spec.model_dump_json(exclude=added, indent=2)
    (package.path / "spec.json").write_text(older, encoding="utf-8")
    ModelPackageMaterializer(str(uri)).save(ModelPackage(package.path))
    spec = ModelPackageMaterializer(str(uri)).load(ModelPackage).spec
    assert added & spec.model_fields_set == set()
    assert (spec.weights_license, spec.spent, spec.history) == ("not stated", None, ())


def test_the_dashboard_shows_the_card(package: ModelPackage, tmp_path: Path) -> None:
    materializer = ModelPackageMaterializer(str(tmp_path / "artifact"))
    materializer.save(package)
    ((uri, kind),) = materializer.save_visualizations(package).items()
    assert kind == VisualizationType.MARKDOWN
    assert Path(uri).read_text(encoding="utf-8") == package.card
    metadata = materializer.extract_metadata(package)
    assert metadata["classes"] == 3
    assert metadata["package_fingerprint"] == package.fingerprint
    assert json.dumps(metadata)


def test_a_report_comes_back_as_it_was(report: EvaluationReport, tmp_path: Path) -> None:
    uri = str(tmp_path / "artifact")
    EvaluationReportMaterializer(uri).save(report)
    loaded = EvaluationReportMaterializer(uri).load(EvaluationReport)
    assert loaded.to_json() == report.to_json()
    assert loaded.metrics == report.metrics
    assert loaded.predictions.equals(report.predictions)
    assert loaded.html == report.html
    assert loaded.content_hash == report.content_hash


def test_a_report_is_kept_in_files_that_anyone_can_read(report: EvaluationReport, tmp_path: Path) -> None:
    uri = tmp_path / "artifact"
    EvaluationReportMaterializer(str(uri)).save(report)
    findings = json.loads((uri / "findings.json").read_text(encoding="utf-8"))
    assert findings["test_fingerprint"] == report.test_fingerprint
    assert findings["metrics"]["accuracy"] == report.metrics.accuracy
    assert sorted(path.suffix for path in uri.iterdir()) == [".html", ".json", ".json", ".parquet"]


def test_a_damaged_report_is_not_read(report: EvaluationReport, tmp_path: Path) -> None:
    uri = tmp_path / "artifact"
    EvaluationReportMaterializer(str(uri)).save(report)
    findings = (uri / "findings.json").read_text(encoding="utf-8")
    (uri / "findings.json").write_text(findings.replace('"accuracy"', '"accuraxy"'), encoding="utf-8")
    with pytest.raises(ImagoError, match=r"findings\.json"):
        EvaluationReportMaterializer(str(uri)).load(EvaluationReport)


def test_the_hash_of_a_report_does_not_depend_on_how_long_it_took(report: EvaluationReport, tmp_path: Path) -> None:
    materializer = EvaluationReportMaterializer(str(tmp_path / "artifact"))
    spent = Spent(cpu_seconds=9.0, watts_per_core=12, grid_intensity=473)
    slower = report.model_copy(update={"latency_ms": 99.0, "latency_ms_p95": 999.0, "spent": spent})
    assert materializer.compute_content_hash(slower) == materializer.compute_content_hash(report)


def test_the_dashboard_shows_the_page(report: EvaluationReport, tmp_path: Path) -> None:
    materializer = EvaluationReportMaterializer(str(tmp_path / "artifact"))
    materializer.save(report)
    ((uri, kind),) = materializer.save_visualizations(report).items()
    assert kind == VisualizationType.HTML
    assert Path(uri).read_text(encoding="utf-8") == report.html
    metadata = materializer.extract_metadata(report)
    assert metadata["test_accuracy"] == report.metrics.accuracy
    assert metadata["weakest_class"] == "blue"
    assert json.dumps(metadata)
