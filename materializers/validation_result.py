"""ValidationResult: the verdict as JSON, what was found as Parquet; the dashboard shows the page."""

import hashlib
import json
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.data.validation import ValidationResult
from materializers.folder import new_folder, open_folder

RESULT, ISSUES, PAGE = "validation.json", "issues.parquet", "validation.html"


class ValidationResultMaterializer(BaseMaterializer):
    """Stores a verdict on data in files that need no Imago to be read."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ValidationResult,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: ValidationResult) -> None:
        with new_folder(self.uri) as folder:
            (folder / RESULT).write_text(data.model_dump_json(exclude={"page"}, indent=1), encoding="utf-8")
            (folder / PAGE).write_text(data.page, encoding="utf-8")
            pq.write_table(issues(data), folder / ISSUES)

    def load(self, data_type: type[Any]) -> ValidationResult:  # noqa: ARG002
        with self.get_temporary_directory(delete_at_exit=True) as cache:
            folder = open_folder(self.uri, cache)
            kept = json.loads((folder / RESULT).read_bytes())
            return ValidationResult.model_validate(kept | {"page": (folder / PAGE).read_text(encoding="utf-8")})

    def save_visualizations(self, data: ValidationResult) -> dict[str, VisualizationType]:  # noqa: ARG002
        return {f"{self.uri}/{PAGE}": VisualizationType.HTML}

    def extract_metadata(self, data: ValidationResult) -> dict[str, MetadataType]:
        return {
            "verdict": data.verdict,
            "reasons": data.reasons,
            "found": data.found,
            "accepted": data.accepted,
            "quarantined": len(data.quarantined),
            "fingerprint": data.fingerprint,
            "checks": {check.id: check.count for check in data.checks if check.count},
        }

    def compute_content_hash(self, data: ValidationResult) -> str:
        return hashlib.sha256(data.model_dump_json(exclude={"page"}).encode()).hexdigest()


def issues(result: ValidationResult) -> pa.Table:
    """Return one row for each picture that a check names, with the check and what follows from it."""
    rows = [
        {"id": name, "check": check.id, "severity": check.severity, "quarantined": name in check.quarantined}
        for check in result.checks
        for name in check.pictures
    ]
    columns = {"id": pa.string(), "check": pa.string(), "severity": pa.string(), "quarantined": pa.bool_()}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))
