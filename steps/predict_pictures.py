"""Predict a folder of unlabelled pictures."""

from typing import Annotated

from zenml import log_metadata, step

from imago import progress
from imago.config import InferenceConfig
from imago.data.sources import fetched
from imago.serving.batch import Predictions, predict_folder
from imago.serving.package import ModelPackage
from materializers.predictions import PredictionsMaterializer
from steps.code import cached_by


@step(output_materializers=PredictionsMaterializer, cache_policy=cached_by("imago.data.sources", "imago.serving.batch"))
def predict_pictures(
    model: ModelPackage, source: str, source_state: str, inference: InferenceConfig
) -> Annotated[Predictions, "predictions"]:
    """Give one row a file; a file that cannot be read is a row with its reason. `source_state` follows the files."""
    with progress.reporter() as reporting:
        predictions = predict_folder(model, fetched(source), inference, progress.counted(reporting, "pictures"))
    log_metadata({"count": len(predictions), "failed": predictions.failed, "source_state": source_state})
    return predictions
