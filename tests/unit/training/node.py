"""One node of a training on several: `python -m tests.unit.training.node WORKDIR`."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

import imago.torchvision_compat  # noqa: F401  (before anything that imports torchvision)
from imago.config import ModelConfig, TrainingConfig
from imago.history import EpochResult
from imago.training.trainer import train
from tests.unit.training.moths import SIZE, Silence, plain_pictures

CONFIG = {"epochs": 3, "label_smoothing": 0, "batch_size": 4, "nodes": 2}


def main(workdir: Path) -> None:
    """Train, and leave the model and what was told of it."""
    told: list[EpochResult] = []
    trained = train(
        plain_pictures(train=12, val=5),
        ModelConfig(architecture="test_vit", weights="none"),
        TrainingConfig.model_validate(CONFIG),
        image_size=SIZE,
        seed=0,
        workdir=workdir,
        on_epoch=told.append,
        reporter=Silence(),
    )
    save_file(trained.model.state_dict(), workdir / "model.safetensors")
    facts = {"temperature": trained.temperature, "val_losses": [result.val_loss for result in told]}
    (workdir / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
