"""Predictions: the table as Parquet, the thumbnails beside it; the dashboard shows the page."""

import hashlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.serving.batch import Predictions
from materializers.folder import load_folder, save_folder

TABLE, THUMBNAILS, PAGE = "predictions.parquet", "thumbnails.parquet", "predictions.html"


class PredictionsMaterializer(BaseMaterializer):
    """Stores a batch of predictions in files that need no Imago to be read."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Predictions,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Predictions) -> None:
        names = pa.array(list(data.thumbnails), type=pa.string())
        thumbnails = pa.table({"path": names, "jpeg": pa.array(list(data.thumbnails.values()), type=pa.binary())})
        with TemporaryDirectory(prefix="imago-") as folder:
            root = Path(folder)
            pq.write_table(data.table.replace_schema_metadata({"model": data.model}), root / TABLE)
            pq.write_table(thumbnails, root / THUMBNAILS, compression="none")
            (root / PAGE).write_text(data.page, encoding="utf-8")
            save_folder(root, self.uri)

    def load(self, data_type: type[Any]) -> Predictions:  # noqa: ARG002
        with TemporaryDirectory(prefix="imago-") as folder:
            root = load_folder(self.uri, folder)
            table = pq.read_table(root / TABLE, memory_map=False)
            thumbnails = pq.read_table(root / THUMBNAILS, memory_map=False).to_pylist()
        model = (table.schema.metadata or {}).get(b"model", b"").decode()
        table = table.replace_schema_metadata(None)
        return Predictions(table, {row["path"]: row["jpeg"] for row in thumbnails}, model)

    def save_visualizations(self, data: Predictions) -> dict[str, VisualizationType]:  # noqa: ARG002
        return {f"{self.uri}/{PAGE}": VisualizationType.HTML}

    def extract_metadata(self, data: Predictions) -> dict[str, MetadataType]:
        return {"model": data.model, "count": len(data), "failed": data.failed, "rejected": data.rejected}

    def compute_content_hash(self, data: Predictions) -> str:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, data.table.schema) as writer:
            writer.write_table(data.table.combine_chunks())
        return hashlib.sha256(data.model.encode() + b"\0" + sink.getvalue()).hexdigest()
