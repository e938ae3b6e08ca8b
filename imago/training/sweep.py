"""Searches the configured space for the hyperparameters that do best on the validation pictures."""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from pydantic import BaseModel, ConfigDict, Field
from torch.multiprocessing.spawn import ProcessRaisedException

from imago.config import Config
from imago.data.dataset import ImageDataset
from imago.errors import DataRefused, ImagoError
from imago.history import EpochResult
from imago.progress import Reporter
from imago.quiet import quiet
from imago.training.augment import check_rand_augment
from imago.training.classifier import create_classifier, try_out
from imago.training.fit import LOUD
from imago.training.meter import cpu_seconds
from imago.training.recipe import check_epochs
from imago.training.shortage import is_lack_of_memory
from imago.training.space import apply, check_space, draw
from imago.training.trainer import train

logger = logging.getLogger("imago.sweep")

_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}
_TELLING = 5  # trials that were trained to their end; before these none is given up


class Trial(BaseModel):
    """What one choice of hyperparameters, by dotted key, gave; `reason` says why it gave nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    values: dict[str, Any]
    val_accuracy: float
    val_loss: float | None
    state: Literal["complete", "pruned", "failed"] = "complete"
    reason: str | None = None
    val_accuracies: dict[int, float] = Field(default_factory=dict)  # by epoch


class SweepResult(BaseModel):
    """Every trial, the best of them, and the configuration to train with its values: YAML for `--config`.

    `importance` says how much each key has to do with doing well (PED-ANOVA, Watanabe et al. 2023), where the trials
    are enough to tell; where they are not, `note` says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: tuple[Trial, ...]
    best: Trial
    importance: dict[str, float] = Field(default_factory=dict)
    note: str | None = None
    configuration: str


def sweep(
    config: Config,
    dataset: ImageDataset,
    *,
    on_trial: Callable[[Trial], None] | None = None,
    reporter: Reporter | None = None,
    store: Path | None = None,
    cache: Path | None = None,
) -> SweepResult:
    """Train with values that Optuna draws from `sweep.space`, until `sweep.trials` or `sweep.minutes` are used up.

    What was found stands in a file, `store`: a sweep that was cut off goes on after its last whole trial, and
    `on_trial` is told of those before, too. Whatever error ends a trial, it is a failed one, but for a full
    disk. The best trial has the highest validation accuracy, then the lowest loss. Raises ConfigError for a space
    that cannot be searched, or what every trial would stumble over alike, DataRefused where there is nothing to train
    with, and ImagoError where every trial failed; the store then forgets them, so that they are tried again.
    """
    check_space(config)
    _check_shared(config)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(store)
    trials = [Trial.model_validate(done.user_attrs["trial"]) for done in study.trials if "trial" in done.user_attrs]
    spent = float(study.user_attrs.get("cpu_seconds", 0.0))
    on_trial = on_trial or (lambda _: None)
    for trial in trials:
        on_trial(trial)
    limit = 60 * config.sweep.minutes if config.sweep.minutes is not None else math.inf
    while len(trials) < config.sweep.trials and spent < limit:
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(trials))  # the same whenever it goes on
        begun = cpu_seconds()
        drawn = study.ask()
        values = {key: draw(drawn, key, rule) for key, rule in config.sweep.space.items()}
        prunable = drawn if config.sweep.prune and config.training.processes == 1 else None
        trial = _run(len(trials), values, config, dataset, reporter, cache, prunable)
        drawn.set_user_attr("trial", trial.model_dump())
        _tell(study, drawn.number, trial)
        spent += cpu_seconds() - begun
        study.set_user_attr("cpu_seconds", spent)
        trials.append(trial)
        on_trial(trial)
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        if store is not None:
            store.unlink()
        raise ImagoError(f"All {len(trials)} trials of the sweep failed, the last because: {trials[-1].reason}")
    best = max(complete, key=lambda trial: (trial.val_accuracy, -(trial.val_loss or 0.0)))
    chosen = apply(config, best.values).model_dump(mode="json", exclude={"sweep"})
    importance = _importance(study)
    return SweepResult(
        trials=tuple(trials),
        best=best,
        importance=importance,
        note=None if importance else _why_no_importance(len(complete), config),
        configuration=yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True),
    )


def _study(store: Path | None) -> optuna.Study:
    """Return the study that the store holds, or a new one; what was being tried when it was cut off is tried again."""
    storage = None
    if store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
        _mend(store)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(store)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_TELLING)
    study = optuna.create_study(
        direction="maximize", pruner=pruner, storage=storage, study_name="sweep", load_if_exists=True
    )
    for cut_off in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        if kept := cut_off.user_attrs.get("trial"):  # it was over, and this alone had not been said
            _tell(study, cut_off.number, Trial.model_validate(kept))
            continue
        study.tell(cut_off.number, state=optuna.trial.TrialState.FAIL)
        if cut_off.params:
            study.enqueue_trial(cut_off.params)
    return study


def _mend(store: Path) -> None:
    """Take off what a store does not hold whole: the line that was being written when the disk was full."""
    if not store.exists():
        return
    with store.open("r+b") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
        file.truncate(whole)


def _tell(study: optuna.Study, number: int, trial: Trial) -> None:
    study.tell(number, trial.val_accuracy if trial.state == "complete" else None, _STATES[trial.state])


def _importance(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < _TELLING or len({trial.value for trial in complete}) < 2:
        return {}
    varied = [key for key in complete[0].params if len({repr(trial.params[key]) for trial in complete}) > 1]
    if len(varied) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, params=varied)
    return {key: round(float(share), 3) for key, share in found.items()}


def _why_no_importance(complete: int, config: Config) -> str:
    if len(config.sweep.space) < 2:
        return "what the result depended on takes two keys to compare: sweep.space has one"
    if complete < _TELLING:
        return (
            f"what the result depended on takes {_TELLING} complete trials to tell, and there are {complete}: raise "
            "sweep.trials, or set sweep.prune=false"
        )
    return "the trials do not differ enough, in what was drawn or in how they did, to tell what the result depended on"


def _check_shared(config: Config) -> None:
    """Raise ConfigError for what no drawn value can mend; weights of the hub are fetched here, once."""
    space, training, model, size = config.sweep.space, config.training, config.model, config.data.image_size
    if not {"training.epochs", "training.warmup_head"} & space.keys():
        check_epochs(training, model.weights)
    if training.rand_augment is not None and "training.rand_augment" not in space:
        check_rand_augment(training.rand_augment)
    with quiet(*LOUD):
        network = create_classifier(model.architecture, model.weights, 2, size)
    if training.train_size is not None and "training.train_size" not in space:
        try_out(network, model.architecture, training.train_size, "training.train_size")


def _run(
    number: int,
    values: dict[str, Any],
    config: Config,
    dataset: ImageDataset,
    reporter: Reporter | None,
    cache: Path | None,
    drawn: optuna.Trial | None,
) -> Trial:
    """Train with the values; what was `drawn` is told of every epoch, and may call it off.

    Several processes tell of their epochs only once all are done, when there is nothing left to save.
    """
    accuracies: dict[int, float] = {}

    def on_epoch(result: EpochResult) -> None:
        accuracies[result.epoch] = result.val_accuracy
        if drawn is None:
            return
        drawn.report(max(accuracies.values()), result.epoch)
        if drawn.should_prune():
            raise optuna.TrialPruned

    def trial(val_accuracy: float, val_loss: float | None = None, **ended: Any) -> Trial:
        found = {"val_accuracy": val_accuracy, "val_loss": val_loss, "val_accuracies": accuracies}
        return Trial.model_validate({"number": number, "values": values, **found, **ended})

    try:
        chosen = apply(config, values)
        with tempfile.TemporaryDirectory(prefix="trial-") as workdir:
            trained = train(
                dataset,
                chosen.model,
                chosen.training,
                image_size=chosen.data.image_size,
                seed=chosen.seed,
                workdir=Path(workdir),
                on_epoch=on_epoch,
                reporter=reporter,
                cache=cache,
            )
    except optuna.TrialPruned:
        reason = "it did worse than the median of the trials before"
        return trial(max(accuracies.values()), state="pruned", reason=reason)
    except DataRefused:  # which are the same for every trial
        raise
    except Exception as error:
        if is_lack_of_memory(error) or isinstance(error, OSError):  # which is the machine's, and no fault of the values
            raise
        logger.debug("trial %d failed", number, exc_info=True)
        return trial(0.0, state="failed", reason=_in_one_line(error))
    return trial(trained.best.val_accuracy, trained.best.val_loss)


def _in_one_line(error: Exception) -> str:
    """Return what an error says; of one that another process printed, the last line of its traceback."""
    if isinstance(error, ImagoError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    said = lines[-1 if isinstance(error, ProcessRaisedException) else 0].strip()
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
