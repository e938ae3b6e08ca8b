"""ModelPackage: the folder as it is, every file accounted for; the dashboard shows the model's card."""

import hashlib
import json
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from imago.home import home
from imago.serving.package import ModelPackage
from materializers.folder import open_folder, save_folder

CARD = "MODEL_CARD.md"


class ModelPackageMaterializer(BaseMaterializer):
    """Stores a model package without a pickle, and reads it where it lies where the store is local."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ModelPackage,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: ModelPackage) -> None:
        _ = data.spec
        save_folder(data.path, self.uri)

    def load(self, data_type: type[Any]) -> ModelPackage:  # noqa: ARG002
        copy = home() / "packages" / hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        package = ModelPackage(open_folder(self.uri, copy))
        _ = package.spec
        return package

    def save_visualizations(self, data: ModelPackage) -> dict[str, VisualizationType]:  # noqa: ARG002
        return {f"{self.uri}/{CARD}": VisualizationType.MARKDOWN}

    def extract_metadata(self, data: ModelPackage) -> dict[str, MetadataType]:
        spec = data.spec
        return {
            "architecture": spec.architecture,
            "weights": spec.weights,
            "classes": len(spec.classes),
            "image_size": spec.preprocessing.image_size,
            "temperature": spec.temperature,
            "reject_threshold": spec.reject_threshold,
            "dataset_fingerprint": spec.dataset_fingerprint,
            "package_fingerprint": data.fingerprint,
            "model_bytes": data.onnx.stat().st_size,
            **spec.metrics,
        }

    def compute_content_hash(self, data: ModelPackage) -> str:
        """Return a digest of what the model does: of weights, graph, golden samples and spec, but not of when."""
        spec = json.loads(data.spec.model_dump_json(exclude={"created", "spent", "history"}))
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
        golden = [data.path / "golden" / sample.file for sample in data.golden]
        for path in (data.weights, data.onnx, *golden, data.path / "golden" / "golden.json"):
            with path.open("rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
        return digest.hexdigest()
