"""Which devices and processes a training may be spread over, and how they are started."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch

from imago.config import TrainingConfig
from imago.errors import ConfigError, did_you_mean

Found = TypeVar("Found")

_FORKED = {"popen", "fork"}  # how Lightning starts them by itself: what it would launch anew is forked here


def check_devices(training: TrainingConfig) -> None:
    """Raise ConfigError where there are not so many devices, or their strategy cannot be started by fork."""
    options_of(training)
    if 0 < (gpus := torch.cuda.device_count()) < training.devices:
        raise ConfigError(f"training.devices is {training.devices}, and this machine has {gpus} GPUs: ask for no more.")


def check_shares(training: TrainingConfig, pictures: Mapping[str, int]) -> None:
    """Raise ConfigError where a process would get none of a split's pictures."""
    for split, count in pictures.items():
        if count < training.processes:
            raise ConfigError(
                f"training.devices: {training.processes} processes cannot share {count} {split} pictures: ask "
                "for no more than there are."
            )


def check_one_node(training: TrainingConfig) -> None:
    """Raise ConfigError where several machines are to run what one of them has to: a pipeline, or a sweep."""
    if training.nodes > 1:
        raise ConfigError(
            f"training.nodes is {training.nodes}, and each of them would evaluate and promote a model of its own: run "
            "pipelines with 1, and call imago.training.trainer.train on each node to train on several."
        )


def options_of(training: TrainingConfig) -> dict[str, Any]:
    """Return what Lightning's DDP is told for one of its strategies, its processes started by fork.

    A program that Lightning launches anew for every device would meet its own lock, and one that is spawned cannot be
    handed the pictures. Raises ConfigError for these, and for a name that Lightning does not know.
    """
    start = {"start_method": "fork" if training.devices > 1 else "popen"}  # which starts none beside this process
    if (strategy := training.strategy) == "auto":
        return start
    from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry  # seconds, which a check can do without

    known = StrategyRegistry.available_strategies()
    if strategy not in known:
        raise ConfigError(f"training.strategy: Lightning knows no '{strategy}'.{did_you_mean(strategy, known)}")
    options: dict[str, Any] = StrategyRegistry[strategy]["init_params"]
    if StrategyRegistry[strategy]["strategy"] is not DDPStrategy or options["start_method"] not in _FORKED:
        raise ConfigError(
            f"training.strategy: the processes of '{strategy}' are not started by fork: take auto or ddp."
        )
    return options | start


@contextlib.contextmanager
def forkable(training: TrainingConfig) -> Iterator[None]:
    """Let processes that are forked meanwhile compute on one thread each.

    OpenMP's threads do not outlive a fork: a process that has used them leaves its children waiting for them for ever.
    See https://gcc.gnu.org/bugzilla/show_bug.cgi?id=60035.
    """
    if training.devices == 1:
        yield
        return
    threads, said = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # else Lightning shares out all cores among the processes
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["OMP_NUM_THREADS"]
        if said is not None:
            os.environ["OMP_NUM_THREADS"] = said


def placed() -> tuple[int, int]:
    """Return the number of this process among those that train together, and how many they are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def of_all(mine: list[Found]) -> list[Found]:
    """Return what all processes that train together have found."""
    _, world = placed()
    if world == 1:
        return mine
    found: list[list[Found]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(found, mine)
    return [one for some in found for one in some]
