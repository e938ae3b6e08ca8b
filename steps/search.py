"""Search for better hyperparameters."""

from typing import Annotated

import click
from zenml import get_step_context, log_metadata, step

from imago import home
from imago.config import Config
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.training.sweep import SweepResult, Trial, sweep
from stack.tracking import Tracking
from steps.code import cached_by, key_of

_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""What MLflow calls the state of a trial."""


@step(cache_policy=cached_by("imago.training.sweep"))
def search(
    dataset: ImageDataset, validation: ValidationResult, config: Config, weights_state: str
) -> Annotated[SweepResult, "sweep"]:
    """Run the trials, each a child run in MLflow; those of a sweep that was cut off count, but for `--no-cache`."""
    accepted = dataset.without(validation.quarantined)
    budget = {"trials": 0, "minutes": None}  # a larger one goes on with the trials of a smaller
    asked = config.model_copy(update={"sweep": config.sweep.model_copy(update=budget)})
    decided = (accepted.digests, accepted.labels, accepted.splits, asked, weights_state)
    key = key_of(*decided, code="imago.training.sweep", packages=("torch", "timm", "optuna"))
    place = home.place_for("sweeps", key, keep=8)
    store = place / "trials.log"
    with home.alone_in(place), Tracking() as tracking:
        if get_step_context().pipeline_run.config.enable_cache is False:
            store.unlink(missing_ok=True)

        def log_trial(trial: Trial) -> None:
            best = {} if trial.state == "failed" else {"best_val_accuracy": trial.val_accuracy}
            curve = {"val_accuracy": trial.val_accuracies}
            tracking.log_child(f"trial {trial.number}", trial.values, best, curve, status=_STATUS[trial.state])
            why = f": {trial.reason}" if trial.reason else ""
            click.echo(f"  trial {trial.number}: {trial.val_accuracy:.3f} {trial.state} {trial.values}{why}", err=True)

        result = sweep(config, accepted, on_trial=log_trial, store=store, cache=home.home())
    log_metadata({"best": result.best.model_dump(), "weights_state": weights_state})
    return result
