"""Measure every picture once."""

from typing import Annotated

from zenml import step

from imago.config import DataConfig
from imago.data.dataset import ImageDataset
from imago.data.statistics import PictureTable
from imago.data.statistics import compute_statistics as measure
from materializers.picture_table import PictureTableMaterializer
from steps.code import cached_by


@step(output_materializers=PictureTableMaterializer, cache_policy=cached_by("imago.data.statistics"))
def compute_statistics(dataset: ImageDataset, data: DataConfig) -> Annotated[PictureTable, "statistics"]:
    """Decode each picture and measure its size, brightness, contrast, sharpness and colour."""
    return measure(dataset, max_pixels=data.max_pixels)
