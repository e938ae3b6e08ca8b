"""EvaluationReport: findings as JSON, answers as Parquet, the page as HTML."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pyarrow.parquet as pq
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.evaluation.report import EvaluationReport
from materializers.folder import load_folder, save_folder

FINDINGS, PREDICTIONS, PAGE = "findings.json", "predictions.parquet", "report.html"


class EvaluationReportMaterializer(BaseMaterializer):
    """Stores an evaluation in files that need no Imago to be read; the dashboard shows the page."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (EvaluationReport,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: EvaluationReport) -> None:
        with TemporaryDirectory(prefix="imago-") as folder:
            root = Path(folder)
            (root / FINDINGS).write_text(data.to_json(), encoding="utf-8")
            pq.write_table(data.predictions, root / PREDICTIONS)
            (root / PAGE).write_text(data.html, encoding="utf-8")
            save_folder(root, self.uri)

    def load(self, data_type: type[Any]) -> EvaluationReport:  # noqa: ARG002
        with TemporaryDirectory(prefix="imago-") as folder:
            root = load_folder(self.uri, folder)
            return EvaluationReport.from_json(
                (root / FINDINGS).read_bytes(),
                pq.read_table(root / PREDICTIONS),
                (root / PAGE).read_text(encoding="utf-8"),
            )

    def save_visualizations(self, data: EvaluationReport) -> dict[str, VisualizationType]:  # noqa: ARG002
        return {f"{self.uri}/{PAGE}": VisualizationType.HTML}

    def extract_metadata(self, data: EvaluationReport) -> dict[str, MetadataType]:
        return {
            **data.figures(),
            "test_fingerprint": data.test_fingerprint,
            "package_fingerprint": data.package_fingerprint,
            "weakest_class": min(
                (entry for entry in data.metrics.per_class if entry.support), key=lambda entry: entry.recall or 0.0
            ).label,
        }

    def compute_content_hash(self, data: EvaluationReport) -> str:
        return data.content_hash
