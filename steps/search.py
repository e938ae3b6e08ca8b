"""Search for better hyperparameters."""

from typing import Annotated

import click
import mlflow
from zenml import log_metadata, step

from imago.config import Config
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.training.sweep import SweepResult, Trial, sweep
from steps.code import cached_by


@step(experiment_tracker=True, cache_policy=cached_by("imago.training.sweep"))
def search(
    dataset: ImageDataset, validation: ValidationResult, config: Config, weights_state: str
) -> Annotated[SweepResult, "sweep"]:
    """Run the trials, each a child run in MLflow."""

    def log_trial(trial: Trial) -> None:
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            mlflow.log_params(trial.values)
            mlflow.log_metric("val_accuracy", trial.val_accuracy)
        click.echo(f"  trial {trial.number}: {trial.val_accuracy:.3f} {trial.state} {trial.values}", err=True)

    result = sweep(config, dataset.without(validation.quarantined), on_trial=log_trial)
    log_metadata({"best": result.best.model_dump(), "weights_state": weights_state})
    return result
