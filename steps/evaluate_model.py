"""Say how good the model is."""

from typing import Annotated

import mlflow
from zenml import log_metadata, step

from imago import progress
from imago.config import EvaluationConfig
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.evaluation.evaluate import EvaluationReport, evaluate
from imago.serving.package import ModelPackage
from materializers.evaluation_report import EvaluationReportMaterializer
from steps.code import cached_by


@step(
    experiment_tracker=True,
    output_materializers=EvaluationReportMaterializer,
    cache_policy=cached_by("imago.evaluation.evaluate"),
)
def evaluate_model(
    dataset: ImageDataset,
    validation: ValidationResult,
    model: ModelPackage,
    evaluation: EvaluationConfig,
    seed: int,
    outside_state: str,
) -> Annotated[EvaluationReport, "evaluation"]:
    """Run the exported graph over the accepted test pictures, and over some from outside its classes.

    `outside_state` changes when the files of `evaluation.outside` do.
    """
    with progress.reporter() as reporting:
        accepted = dataset.without(validation.quarantined)
        report = evaluate(model, accepted, evaluation, seed, on_progress=progress.counted(reporting, "test pictures"))
    figures = report.figures()
    mlflow.log_metrics(figures)
    log_metadata(figures | {"outside_state": outside_state})
    return report
