"""Decide whether the data may be trained on, and which pictures may not."""

from typing import Annotated

from zenml import log_metadata, save_artifact, step

from imago import home
from imago.config import DataConfig
from imago.data.accepted import last_accepted, remember
from imago.data.dataset import ImageDataset
from imago.data.statistics import PictureTable
from imago.data.validation import ValidationResult, validate
from materializers.validation_result import ValidationResultMaterializer
from steps.code import cached_by


@step(
    output_materializers=ValidationResultMaterializer,
    cache_policy=cached_by("imago.data.validation", "imago.data.accepted", reads=("configs/expectations.yaml",)),
)
def validate_data(
    dataset: ImageDataset, statistics: PictureTable, data: DataConfig
) -> Annotated[ValidationResult, "validation"]:
    """Run every check and the Great Expectations suite; a refusal is kept as an artifact before it stops the run."""
    result = validate(dataset, statistics, data, last_accepted(data))
    log_metadata({"verdict": result.verdict, "quarantined": len(result.quarantined)})
    if result.verdict == "refused":
        home.write_report("data.html", result.page)
        save_artifact(result, name="refused_validation", materializer=ValidationResultMaterializer)
    result.raise_if_refused()
    remember(data, statistics.without(result.quarantined))
    return result
