"""Fit the classifier."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from zenml import get_step_context, log_metadata, step

from imago import home
from imago.config import ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.history import EpochResult
from imago.serving.package import ModelPackage
from materializers.model_package import ModelPackageMaterializer
from stack.tracking import Tracking
from steps.code import cached_by, key_of

_NOT_FITTED = {
    "watts_per_core",
    "grid_intensity",
    "reject_coverage",
    "reject_error",
    "micro_batch_size",
    "auto_batch_size",
    "num_workers",
}
"""Keys of training under which the same checkpoint is gone on from."""


@step(
    output_materializers=ModelPackageMaterializer,
    cache_policy=cached_by("imago.training.trainer", "imago.serving.export"),
)
def train_model(
    dataset: ImageDataset,
    validation: ValidationResult,
    model: ModelConfig,
    training: TrainingConfig,
    image_size: int,
    seed: int,
    weights_state: str,
) -> Annotated[ModelPackage, "model"]:
    """Train on the accepted pictures and export the result; every epoch's metrics go to MLflow.

    The checkpoint stays until the pipeline has ended: neither a failing export nor a full store costs the training.
    """
    from imago.serving.export import export_package
    from imago.training.checkpoint import described
    from imago.training.trainer import train

    accepted = dataset.without(validation.quarantined)
    parameters = {f"model.{key}": value for key, value in model} | {f"training.{key}": value for key, value in training}
    key = checkpoint_key(accepted, model, training, image_size, seed, weights_state)
    workdir = home.place_for("training", key, keep=4)
    folder = Path(tempfile.mkdtemp(prefix="imago-package-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the materializer reads it after this step has ended
    with home.alone_in(workdir), Tracking() as tracking:

        def log_epoch(result: EpochResult) -> None:
            figures = {
                "train_loss": result.train_loss,
                "val_loss": result.val_loss,
                "val_accuracy": result.val_accuracy,
            }
            tracking.log_metrics(figures, step=result.epoch)

        tracking.log_params(parameters | {"image_size": image_size, "seed": seed, "data": accepted.fingerprint})
        trained = train(
            accepted,
            model,
            training,
            image_size=image_size,
            seed=seed,
            on_epoch=log_epoch,
            workdir=workdir,
            cache=home.home(),
        )
        package = export_package(
            trained,
            accepted,
            folder / "model",
            name=model.name,
            weights=described(model.weights),
            seed=seed,
            training=training,
        )
        home.mark_done(workdir, str(get_step_context().pipeline_run.id))
    log_metadata({"classes": list(package.spec.classes)})
    return package


def checkpoint_key(
    accepted: ImageDataset, model: ModelConfig, training: TrainingConfig, image_size: int, seed: int, weights_state: str
) -> str:
    """Return the name of the folder whose checkpoint such a training goes on from."""
    fitted = training.model_dump(exclude=_NOT_FITTED)
    decided = (accepted.digests, accepted.labels, accepted.splits, model, fitted, image_size, seed, weights_state)
    return key_of(*decided, code="imago.training.trainer", packages=("torch", "timm"))
