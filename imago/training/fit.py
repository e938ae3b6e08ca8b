"""Runs Lightning over a module and its pictures, on the devices that were asked for."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.seed import isolate_rng
from torch import distributed
from torch.multiprocessing.spawn import ProcessRaisedException

from imago.config import TrainingConfig
from imago.errors import printed_error
from imago.training.datamodule import PictureDataModule
from imago.training.devices import forkable, options_of
from imago.training.module import ClassifierModule

LOUD = ("pytorch_lightning", "lightning_fabric", "lightning", "timm")
"""Loggers whose remarks are of no use here."""


class Nodes(DDPStrategy):
    """Processes on one machine or several, each of which keeps the checkpoint: none sees another's disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        if self.local_rank == 0:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)


def fit(
    module: ClassifierModule,
    data: PictureDataModule,
    callback: Callback,
    training: TrainingConfig,
    workdir: Path,
    *,
    checkpoint: Path | None = None,
) -> None:
    """Train, from a `checkpoint` if there is one. What one of several processes raises comes out as here."""
    trainer = Trainer(
        max_epochs=training.epochs,
        accelerator="auto",
        devices=training.devices,
        num_nodes=training.nodes,
        strategy="auto" if training.processes == 1 else Nodes(**options_of(training)),
        use_distributed_sampler=False,
        logger=False,
        callbacks=[callback],
        default_root_dir=workdir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1_000_000,
        precision=module.recipe.precision,
    )
    with _interruptible(), forkable(training):
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except ProcessRaisedException as error:
            if (ours := printed_error(str(error))) is None:
                raise
            raise ours from error
        finally:
            if distributed.is_initialized():  # a node's only process trained here, and goes on alone
                distributed.destroy_process_group()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C come out as it went in: Lightning turns it into an exit, and leaves the signal ignored."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch for a while; a GPU is left alone, for its use here would forbid to fork."""
    with isolate_rng(include_cuda=False):
        seed_everything(seed % 2**32, verbose=False)
        yield
