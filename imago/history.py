"""What the epochs of a training came to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave; epoch 0 is the head fitted on the frozen backbone's features, and the start otherwise."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float
