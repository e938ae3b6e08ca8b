"""What ZenML keeps of a model and its evaluation comes back whole, or not at all."""

import json
from pathlib import Path

import pytest
from zenml.artifact_stores import LocalArtifactStore, LocalArtifactStoreConfig
from zenml.enums import VisualizationType

from imago.config import EvaluationConfig
from imago.errors import ImagoError
from imago.evaluation.evaluate import evaluate
from imago.evaluation.report import EvaluationReport
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from materializers.evaluation_report import EvaluationReportMaterializer
from materializers.model_package import ModelPackageMaterializer
from tests.packages import colour_dataset, make_package, picture_bytes


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return make_package(tmp_path / "package")


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    root = tmp_path / "store"
    root.mkdir()
    return _store(root)
