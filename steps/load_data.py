"""Read the pictures of a source."""

from typing import Annotated

from zenml import log_metadata, step

from imago.config import DataConfig
from imago.data.dataset import ImageDataset
from imago.data.sources import load_dataset
from materializers.image_dataset import ImageDatasetMaterializer
from steps.code import cached_by


@step(output_materializers=ImageDatasetMaterializer, cache_policy=cached_by("imago.data.sources"))
def load_data(data: DataConfig, source_state: str, seed: int) -> Annotated[ImageDataset, "dataset"]:
    """Read the source that the configuration names; `source_state` changes when its files do."""
    dataset = load_dataset(data, seed)
    log_metadata({"origin": dataset.origin, "source_state": source_state, "pictures": len(dataset)})
    return dataset
