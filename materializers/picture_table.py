"""PictureTable: Parquet, and the outlines as an array; the dashboard shows its summary."""

import hashlib
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.data.features import FEATURES
from imago.data.statistics import PictureTable, as_columns
from materializers.folder import new_folder, open_folder, write_file

TABLE, OUTLINES, SUMMARY = "pictures.parquet", "outlines.npy", "summary.csv"


class PictureTableMaterializer(BaseMaterializer):
    """Stores the measures of pictures, one row a picture."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (PictureTable,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.STATISTICS

    def save(self, data: PictureTable) -> None:
        with new_folder(self.uri) as folder:
            data.frame.to_parquet(folder / TABLE, engine="pyarrow", index=False)
            if data.outlines is not None:
                np.save(folder / OUTLINES, data.outlines, allow_pickle=False)

    def load(self, data_type: type[Any]) -> PictureTable:  # noqa: ARG002
        with self.get_temporary_directory(delete_at_exit=True) as cache:
            folder = open_folder(self.uri, cache)
            outlines = np.load(folder / OUTLINES, allow_pickle=False) if (folder / OUTLINES).is_file() else None
            return PictureTable(as_columns(pd.read_parquet(folder / TABLE, engine="pyarrow")), outlines)

    def save_visualizations(self, data: PictureTable) -> dict[str, VisualizationType]:
        measures = data.readable[["bytes", "width", "height", "aspect", *FEATURES]]
        summary = measures.describe().round(4).rename_axis("statistic").reset_index()
        write_file(f"{self.uri}/{SUMMARY}", summary.to_csv(index=False).encode())
        return {f"{self.uri}/{SUMMARY}": VisualizationType.CSV}

    def extract_metadata(self, data: PictureTable) -> dict[str, MetadataType]:
        return {"pictures": len(data), "readable": len(data.readable)}

    def compute_content_hash(self, data: PictureTable) -> str:
        return hashlib.sha256(data.frame.to_csv(index=False).encode()).hexdigest()
