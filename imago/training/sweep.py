"""Searches the configured space for the hyperparameters that do best on the validation pictures."""

import math
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from pydantic import BaseModel, ConfigDict, Field

from imago.config import Config, build_config, known_keys
from imago.data.dataset import ImageDataset
from imago.errors import ConfigError, DataRefused, ImagoError, did_you_mean
from imago.history import EpochResult
from imago.progress import Reporter
from imago.training.augment import check_rand_augment
from imago.training.classifier import create_classifier, try_out
from imago.training.fit import quiet
from imago.training.meter import cpu_seconds
from imago.training.recipe import check_epochs
from imago.training.trainer import train

_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}
_TELLING = 5  # trials
_RULES = ("choices", "low", "high", "log", "step")


class Trial(BaseModel):
    """What one choice of hyperparameters, by dotted key, gave; `reason` says why it gave nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    values: dict[str, Any]
    val_accuracy: float
    val_loss: float | None
    state: Literal["complete", "pruned", "failed"] = "complete"
    reason: str | None = None


class SweepResult(BaseModel):
    """Every trial, the best of them, and the configuration to train with its values: YAML for `--config`.

    `importance` says how much each key has to do with doing well (PED-ANOVA, Watanabe et al. 2023), where the trials
    are enough to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: tuple[Trial, ...]
    best: Trial
    importance: dict[str, float] = Field(default_factory=dict)
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
    `on_trial` is told of those before, too. Values that cannot be trained with are a failed trial. The best trial has
    the highest validation accuracy, then the lowest loss. Raises ConfigError for a space that cannot be searched, or
    what every trial would stumble over alike, DataRefused where there is nothing to train with, and ImagoError where
    every trial failed; the store then forgets them, so that they are tried again.
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
        draw = study.ask()
        values = {key: _draw(draw, key, rule) for key, rule in config.sweep.space.items()}
        trial = _run(len(trials), values, config, dataset, reporter, cache, draw if config.sweep.prune else None)
        draw.set_user_attr("trial", trial.model_dump())
        study.tell(draw, trial.val_accuracy if trial.state == "complete" else None, _STATES[trial.state])
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
    return SweepResult(
        trials=tuple(trials),
        best=best,
        importance=_importance(study),
        configuration=yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True),
    )


def _study(store: Path | None) -> optuna.Study:
    """Return the study that the store holds, or a new one; what was being tried when it was cut off is tried again."""
    storage = None
    if store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(store)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    study = optuna.create_study(
        direction="maximize", pruner=pruner, storage=storage, study_name="sweep", load_if_exists=True
    )
    for cut_off in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(cut_off.number, state=optuna.trial.TrialState.FAIL)
        if cut_off.params:
            study.enqueue_trial(cut_off.params)
    return study


def _importance(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < _TELLING or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study)
    return {key: round(float(share), 3) for key, share in found.items()}


def apply(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with values put in by dotted key. Raises ConfigError for one that a key cannot take."""
    raw = config.model_dump(mode="json")
    for key, value in values.items():
        *sections, last = key.split(".")
        section = raw
        for name in sections:
            section = section[name]
        section[last] = value
    return build_config(raw, where="sweep.space")


def check_space(config: Config) -> None:
    """Raise ConfigError where `sweep.space` is empty, names a key that training does not read, or has a bad rule."""
    space = config.sweep.space
    if not space:
        raise ConfigError(
            "sweep.space is empty: name a key and its range, say `training.learning_rate: {low: 0.0001, high: 0.01}`."
        )
    known = [key for key in known_keys() if key.startswith("training.")]
    for key, rule in space.items():
        if key not in known:
            raise ConfigError(f"sweep.space: '{key}' is no key of training.{did_you_mean(key, known)}")
        _check_rule(key, rule)
        for value in rule.get("choices", [rule.get("low"), rule.get("high")]):
            tried = apply(config, {key: value})
            if key == "training.rand_augment" and tried.training.rand_augment is not None:
                check_rand_augment(tried.training.rand_augment)


def _check_shared(config: Config) -> None:
    """Raise ConfigError for what no drawn value can mend; weights of the hub are fetched here, once."""
    space, training, model, size = config.sweep.space, config.training, config.model, config.data.image_size
    if not {"training.epochs", "training.warmup_head"} & space.keys():
        check_epochs(training, model.weights)
    if training.rand_augment is not None and "training.rand_augment" not in space:
        check_rand_augment(training.rand_augment)
    with quiet():
        network = create_classifier(model.architecture, model.weights, 2, size)
    if training.train_size is not None and "training.train_size" not in space:
        try_out(network, model.architecture, training.train_size, "training.train_size")


def _check_rule(key: str, rule: Mapping[str, Any]) -> None:
    for name in rule:
        if name not in _RULES:
            raise ConfigError(f"sweep.space: the rule of '{key}' knows no '{name}'.{did_you_mean(name, _RULES)}")
    if "choices" in rule:
        if len(rule) > 1 or not isinstance(rule["choices"], list) or not rule["choices"]:
            raise ConfigError(
                f"sweep.space: the choices of '{key}' are not a list of values, and nothing else: {rule}."
            )
        return
    low, high = rule.get("low"), rule.get("high")
    if not _is_number(low) or not _is_number(high) or not low < high or (rule.get("log") and low <= 0):  # type: ignore[operator]
        raise ConfigError(
            f"sweep.space: '{key}' needs `low` and `high`, numbers, the first below the second (and above 0 with "
            f"`log`), or `choices`: it has {dict(rule)}."
        )
    try:
        _draw(optuna.trial.FixedTrial({key: low}), key, rule)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sweep.space: '{key}' cannot be drawn by {dict(rule)}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw(trial: optuna.trial.BaseTrial, key: str, rule: Mapping[str, Any]) -> Any:
    if "choices" in rule:
        return trial.suggest_categorical(key, rule["choices"])
    low, high, log, step = rule["low"], rule["high"], bool(rule.get("log")), rule.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=step or 1, log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _run(
    number: int,
    values: dict[str, Any],
    config: Config,
    dataset: ImageDataset,
    reporter: Reporter | None,
    cache: Path | None,
    draw: optuna.Trial | None,
) -> Trial:
    """Train with the values; `draw` is told of every epoch, and may call it off."""
    best = 0.0

    def on_epoch(result: EpochResult) -> None:
        nonlocal best
        best = max(best, result.val_accuracy)
        if draw is None:
            return
        draw.report(best, result.epoch)
        if draw.should_prune():
            raise optuna.TrialPruned

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
        return Trial(number=number, values=values, val_accuracy=best, val_loss=None, state="pruned", reason=reason)
    except DataRefused:  # which are the same for every trial
        raise
    except ImagoError as error:
        return Trial(number=number, values=values, val_accuracy=0.0, val_loss=None, state="failed", reason=str(error))
    return Trial(number=number, values=values, val_accuracy=trained.best.val_accuracy, val_loss=trained.best.val_loss)
