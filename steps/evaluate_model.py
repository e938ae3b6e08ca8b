"""Say how good the model is."""

from typing import Annotated

from zenml import log_metadata, step

from imago import progress
from imago.config import EvaluationConfig
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.evaluation.evaluate import evaluate
from imago.evaluation.report import EvaluationReport
from imago.serving.package import ModelPackage
from materializers.evaluation_report import EvaluationReportMaterializer
from stack.tracking import Tracking
from steps.code import cached_by


@step(
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
    with Tracking() as tracking, progress.reporter() as reporting:
        accepted = dataset.without(validation.quarantined)
        report = evaluate(model, accepted, evaluation, seed, on_progress=progress.counted(reporting, "test pictures"))
        figures = report.figures()
        tracking.log_metrics(figures)
    log_metadata(figures | {"outside_state": outside_state})
    return report
