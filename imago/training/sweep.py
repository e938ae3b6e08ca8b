"""Searches the configured space for the hyperparameters that do best on the validation pictures."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from imago.config import Config, SweepConfig, build_config, known_keys
from imago.data.dataset import ImageDataset
from imago.errors import ConfigError, ImagoError, did_you_mean
from imago.training.progress import Reporter
from imago.training.trainer import train

_RANGE = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class TrialResult:
    """What one choice of hyperparameters, by dotted key, gave; `failed` says why it gave nothing."""

    number: int
    values: dict[str, Any]
    val_accuracy: float
    val_loss: float
    failed: str | None = None


@dataclass(frozen=True)
class SweepResult:
    """Every trial, and the best: the highest accuracy, then the lowest loss."""

    trials: tuple[TrialResult, ...]
    best: TrialResult

    def to_json(self) -> dict[str, Any]:
        return {"best": asdict(self.best), "trials": [asdict(trial) for trial in self.trials]}


def sweep(
    config: Config,
    dataset: ImageDataset,
    *,
    workdir: Path,
    on_trial: Callable[[TrialResult], None] | None = None,
    reporter: Reporter | None = None,
) -> SweepResult:
    """Train `sweep.trials` times with values that Optuna's sampler draws from `sweep.space`, repeatably from the seed.

    Raises ConfigError for a space that cannot be searched, and ImagoError where every trial failed.
    """
    check_space(config.sweep)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed))
    trials: list[TrialResult] = []
    for number in range(config.sweep.trials):
        trial = study.ask()
        values = {key: _draw(trial, key, rule) for key, rule in config.sweep.space.items()}
        result = _run(number, values, config, dataset, workdir, reporter)
        if result.failed is None:
            study.tell(trial, result.val_accuracy)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        trials.append(result)
        if on_trial is not None:
            on_trial(result)
    done = [trial for trial in trials if trial.failed is None]
    if not done:
        raise ImagoError(f"All {len(trials)} trials of the sweep failed, the last with: {trials[-1].failed}")
    return SweepResult(tuple(trials), max(done, key=lambda trial: (trial.val_accuracy, -trial.val_loss)))


def check_space(config: SweepConfig) -> None:
    """Raise ConfigError where `sweep.space` is empty, names a key that training does not read, or has a bad rule."""
    if not config.space:
        raise ConfigError(
            "sweep.space is empty: name a key and its range, say training.learning_rate: {low: 1e-4, high: 1e-2}."
        )
    known = [key for key in known_keys() if key.startswith("training.")]
    for key, rule in config.space.items():
        if key not in known:
            raise ConfigError(f"sweep.space: '{key}' is not a key of training.{did_you_mean(key, known)}")
        choices = rule.get("choices")
        if set(rule) == {"choices"} and isinstance(choices, list) and choices:
            continue
        low, high = rule.get("low"), rule.get("high")
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
        if not numbers or set(rule) - _RANGE or not low < high or (rule.get("log") and low <= 0):  # type: ignore[operator]
            raise ConfigError(
                f"sweep.space: the rule of '{key}' is neither {{choices: […]}} nor {{low: …, high: …}} with numbers, low "
                f"below high, and optionally log or step: it is {rule!r}."
            )


def _draw(trial: optuna.Trial, key: str, rule: Mapping[str, Any]) -> Any:
    if "choices" in rule:
        return trial.suggest_categorical(key, rule["choices"])
    low, high, log, step = rule["low"], rule["high"], bool(rule.get("log")), rule.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=step or 1, log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _run(
    number: int, values: dict[str, Any], config: Config, dataset: ImageDataset, workdir: Path, reporter: Reporter | None
) -> TrialResult:
    raw = config.model_dump(mode="json")
    for key, value in values.items():
        raw["training"][key.removeprefix("training.")] = value
    trial = build_config(raw, where=f"trial {number} of sweep.space")
    try:
        trained = train(
            dataset,
            trial.model,
            trial.training,
            image_size=trial.data.image_size,
            seed=trial.seed,
            workdir=workdir,
            reporter=reporter,
        )
    except ConfigError:
        raise
    except ImagoError as error:
        return TrialResult(number, values, 0.0, float("inf"), failed=str(error))
    return TrialResult(number, values, trained.best.val_accuracy, trained.best.val_loss)
