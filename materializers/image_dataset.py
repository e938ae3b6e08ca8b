"""ImageDataset: an Arrow file of encoded pictures, memory-mapped where it lies; the dashboard shows a contact sheet."""

import hashlib
import json
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.data.contact_sheet import render_contact_sheet
from imago.data.dataset import SPLITS, ImageDataset
from imago.home import home
from materializers.folder import new_folder, open_folder, write_file

DATA, SHEET = "dataset.arrow", "contact_sheet.html"


class ImageDatasetMaterializer(BaseMaterializer):
    """Stores pictures as their files' bytes; a local store is read in place, another is copied down first."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ImageDataset,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: ImageDataset) -> None:
        with new_folder(self.uri) as folder:
            data.write(folder / DATA)

    def load(self, data_type: type[Any]) -> ImageDataset:  # noqa: ARG002
        copy = home() / "datasets" / hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        return ImageDataset.read(open_folder(self.uri, copy) / DATA)

    def save_visualizations(self, data: ImageDataset) -> dict[str, VisualizationType]:
        write_file(f"{self.uri}/{SHEET}", render_contact_sheet(data).encode())
        return {f"{self.uri}/{SHEET}": VisualizationType.HTML}

    def extract_metadata(self, data: ImageDataset) -> dict[str, MetadataType]:
        return {
            "pictures": len(data),
            "classes": list(data.classes),
            **{split: data.splits.count(split) for split in SPLITS},
            "fingerprint": data.fingerprint,
            "origin": data.origin,
        }

    def compute_content_hash(self, data: ImageDataset) -> str:
        rows: list[object] = [data.ids, data.digests, data.labels, data.splits, data.origin]
        if any(data.attributes):
            rows.append(data.attributes)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
