"""A timm classifier as Lightning trains it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from timm.data import Mixup
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from imago.config import TrainingConfig
from imago.errors import ImagoError
from imago.progress import Reporter
from imago.training.activation import keep_less
from imago.training.datamodule import Batch
from imago.training.devices import of_all
from imago.training.head import head_keys
from imago.training.layout import memory_format_of
from imago.training.recipe import Recipe, at_once, even_parts

_WARMUP_SHARE = 0.15


class ClassifierModule(LightningModule):
    """Cross-entropy and AdamW with one cycle of the learning rate; lower layers may learn more slowly than the head."""

    def __init__(
        self,
        model: nn.Module,
        training: TrainingConfig,
        recipe: Recipe,
        labels: Sequence[int],
        memory_format: torch.memory_format | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.memory_format = memory_format or memory_format_of(model)
        model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        keep_less(model)
        self.training_config = training
        self.recipe = recipe
        self.average = ModelEmaV3(model, decay=training.ema_decay, use_warmup=True) if training.ema_decay else None
        if self.average is not None:
            self.average.requires_grad_(False)
        counts = torch.bincount(torch.tensor(labels)).clamp_min(1).float()
        self.class_weights = counts.mean() / counts if training.balance == "loss" else None
        self.mixup = _mixup(training, len(counts))
        if training.checkpoint_gradients:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        if training.compile:
            model.compile()
        self.train_loss, self.val_loss, self.val_accuracy = float("nan"), float("nan"), 0.0
        self._losses: list[float] = []
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and kept: their moving average, where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def latest_loss(self) -> float:
        """The loss of the step that was just made, on the CPU already."""
        return self._losses[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, C) of pictures (N, 3, H, W)."""
        network = self.model if self.training else self.judged
        logits: torch.Tensor = network(images.to(memory_format=self.memory_format))
        return logits

    def on_train_epoch_start(self) -> None:
        self._losses.clear()
        if self.training_config.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def training_step(self, batch: Batch, index: int) -> None:
        """Make one step of the weights, its gradients computed in parts that weigh as much as they have pictures."""
        images, labels = batch
        smoothing = self.training_config.label_smoothing
        if self.mixup is not None and len(labels) > 1:
            pairs = len(labels) // 2 * 2  # mixed by twos, so that an odd batch goes without its last
            images, labels = self.mixup(images[:pairs], labels[:pairs])  # which smooths them, too
            smoothing = 0.0
        weight = None if self.class_weights is None else self.class_weights.to(images.device)
        whole = float(len(labels)) if weight is None or labels.ndim > 1 else float(weight[labels].sum())
        parts = even_parts(len(labels), at_once(self.training_config, images.shape[-1]))
        optimiser = self.optimizers()
        assert isinstance(optimiser, LightningOptimizer)
        optimiser.zero_grad()
        value = 0.0
        for some, truth in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            loss = functional.cross_entropy(self(some), truth, weight, label_smoothing=smoothing, reduction="sum")
            loss = loss / whole
            value += loss.item()
            if not math.isfinite(value):
                raise ImagoError(
                    f"The training loss is no longer a number in step {index + 1} of epoch {self.current_epoch + 1}: "
                    f"lower training.learning_rate (it is {self.recipe.learning_rate:g})."
                )
            self.manual_backward(loss)
        optimiser.step()
        self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        if self.average is not None:
            self.average.update(self.model, step=self.global_step)
        self._losses.append(value)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.training_config.clip_norm:
            self.clip_gradients(optimizer, self.training_config.clip_norm, "norm")

    def on_validation_epoch_start(self) -> None:
        self._outputs.clear()

    def validation_step(self, batch: Batch, _index: int) -> None:
        images, labels = batch
        self._outputs.append((self(images).float().cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        outputs, losses = of_all(self._outputs), of_all(self._losses)
        logits, labels = (torch.cat(column) for column in zip(*outputs, strict=True))
        self.train_loss = sum(losses) / max(1, len(losses))
        self.val_loss = functional.cross_entropy(logits, labels).item()
        self.val_accuracy = (logits.argmax(1) == labels).float().mean().item()

    def configure_optimizers(self) -> Any:
        groups = list(self.parameter_groups())
        optimiser = torch.optim.AdamW(groups, lr=self.recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=[group["lr"] for group in groups],
            total_steps=max(2, int(self.trainer.estimated_stepping_batches)),
            pct_start=_WARMUP_SHARE,
            cycle_momentum=False,
        )
        return [optimiser], [schedule]

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Give the parameters by learning rate and weight decay; timm knows the layers of its networks.

        What a network names besides, such as position embeddings, does not decay either.
        """
        keys = head_keys(self.model)
        head = {id(parameter) for name, parameter in self.model.named_parameters() if name in keys}
        for group in param_groups_layer_decay(
            self.model,
            self.training_config.weight_decay,
            getattr(self.model, "no_weight_decay", tuple)(),
            layer_decay=self.recipe.layer_decay,
        ):
            for of_head in (False, True):
                members = [parameter for parameter in group["params"] if (id(parameter) in head) == of_head]
                rate = self.recipe.head_learning_rate if of_head else self.recipe.learning_rate * group["lr_scale"]
                if members:
                    yield {"params": members, "lr": rate, "weight_decay": group["weight_decay"]}


def without_checkpoints(training: TrainingConfig, model: nn.Module, reporting: Reporter) -> TrainingConfig:
    """Return the training as this network can take it: some of timm's keep all activations, and a note says so."""
    if not training.checkpoint_gradients:
        return training
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AssertionError, AttributeError):
        reporting.note(
            "training.checkpoint_gradients is left out, for timm has none for this network: where memory does not do, "
            "lower training.micro_batch_size"
        )
        return training.model_copy(update={"checkpoint_gradients": False})
    model.set_grad_checkpointing(False)  # type: ignore[operator]
    return training


def _mixup(training: TrainingConfig, classes: int) -> Mixup | None:
    if not training.mixup and not training.cutmix:
        return None
    return Mixup(training.mixup, training.cutmix, label_smoothing=training.label_smoothing, num_classes=classes)
