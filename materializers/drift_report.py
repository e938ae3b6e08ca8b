"""DriftReport: verdict, tests and Evidently's snapshot as JSON; the dashboard shows the page."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.monitoring.drift import DriftReport
from materializers.folder import load_folder, save_folder

REPORT, PAGE = "drift.json", "drift.html"


class DriftReportMaterializer(BaseMaterializer):
    """Stores a verdict on drift in files that need no Imago to be read."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DriftReport,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: DriftReport) -> None:
        with TemporaryDirectory(prefix="imago-") as folder:
            root = Path(folder)
            (root / REPORT).write_text(data.model_dump_json(exclude={"page"}, indent=1), encoding="utf-8")
            (root / PAGE).write_text(data.page, encoding="utf-8")
            save_folder(root, self.uri)

    def load(self, data_type: type[Any]) -> DriftReport:  # noqa: ARG002
        with TemporaryDirectory(prefix="imago-") as folder:
            root = load_folder(self.uri, folder)
            kept = json.loads((root / REPORT).read_bytes())
            return DriftReport.model_validate(kept | {"page": (root / PAGE).read_text(encoding="utf-8")})

    def save_visualizations(self, data: DriftReport) -> dict[str, VisualizationType]:  # noqa: ARG002
        return {f"{self.uri}/{PAGE}": VisualizationType.HTML}

    def extract_metadata(self, data: DriftReport) -> dict[str, MetadataType]:
        metadata: dict[str, MetadataType] = {
            "verdict": data.verdict,
            "count": data.window.count,
            "drifted": [test.name for test in data.tests if test.drifted],
        }
        for name, value in (("accuracy", data.accuracy), ("estimated_accuracy", data.estimated_accuracy)):
            if value is not None:
                metadata[name] = value
        return metadata

    def compute_content_hash(self, data: DriftReport) -> str:
        return hashlib.sha256(data.model_dump_json(exclude={"page"}).encode()).hexdigest()
