"""What to do where memory was too small for a training, or what it takes at a time too few pictures."""

import signal

import torch
from torch.multiprocessing.spawn import ProcessExitedException

from imago.config import TrainingConfig
from imago.errors import ImagoError
from imago.training.recipe import at_once


def for_less_memory(training: TrainingConfig, error: Exception, side: int) -> TrainingConfig:
    """Return the same training with half as many pictures at a time as it took of this side in pixels.

    Raises what is no lack of memory, and ImagoError unless `auto_batch_size` asks for it, or where one was too many.
    """
    if not is_lack_of_memory(error):
        raise error
    now = at_once(training, side)
    killed = isinstance(error, ProcessExitedException)
    memory = "A process was killed, most likely because memory" if killed else "Memory"
    if now == 1:
        less = "" if training.checkpoint_gradients else ", or training.checkpoint_gradients=true"
        raise ImagoError(
            f"{memory} does not do for one picture at a time: set a smaller data.image_size{less}."
        ) from error
    if training.auto_batch_size:
        return training.model_copy(update={"micro_batch_size": now // 2})
    raise ImagoError(
        f"{memory} does not do for {now} pictures at a time: set training.micro_batch_size={now // 2}, or "
        "training.auto_batch_size=true, or take --config small_memory."
    ) from error


def refuse_one_picture(error: Exception) -> None:
    """Raise ImagoError where batch norm was to learn from a single value, which has no variance."""
    if "Expected more than 1 value per channel" in str(error):
        raise ImagoError(
            "This network's batch norm does not learn from one picture at a time: take two or more "
            "(training.batch_size and training.micro_batch_size), or set training.freeze_batch_norm=true."
        ) from error


def is_lack_of_memory(error: Exception) -> bool:
    """Tell whether memory was too small: here, on a GPU, or for a process that trained beside this one.

    Where a machine's memory ends, the kernel kills a process, which has no time to say so.
    """
    said = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, ProcessExitedException) and error.exit_code == -signal.SIGKILL)
        or "allocate memory" in said
        or "OutOfMemoryError" in said
    )
