"""The space that a sweep searches: a rule for each key, by the kind of value that the key takes."""

import math
from collections.abc import Mapping
from typing import Any, get_args

import optuna

from imago.config import Config, TrainingConfig, build_config, known_keys
from imago.errors import ConfigError, did_you_mean
from imago.training.augment import check_rand_augment
from imago.training.devices import check_one_node, options_of

_RULES = ("choices", "low", "high", "log", "step")
_SECTION = "training."


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
    known = [key for key in known_keys() if key.startswith(_SECTION)]
    for key, rule in space.items():
        if key not in known:
            raise ConfigError(f"sweep.space: '{key}' is no key of training.{did_you_mean(key, known)}")
        for value in _outermost(key, rule):
            tried = apply(config, {key: value}).training
            options_of(tried)
            check_one_node(tried)
            if key == "training.rand_augment" and tried.rand_augment is not None:
                check_rand_augment(tried.rand_augment)


def draw(trial: optuna.trial.BaseTrial, key: str, rule: Mapping[str, Any]) -> Any:
    """Return the value that Optuna draws by a rule which `check_space` has passed."""
    if "choices" in rule:
        return trial.suggest_categorical(key, rule["choices"])
    low, high, step = (_number(rule.get(name)) for name in ("low", "high", "step"))
    assert low is not None
    assert high is not None
    log = bool(rule.get("log"))
    if _kind(key) is int:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def _outermost(key: str, rule: Mapping[str, Any]) -> list[Any]:
    """Return the values of a rule by which its key is tried. Raises ConfigError for a rule that cannot be drawn by."""
    for name in rule:
        if name not in _RULES:
            raise ConfigError(f"sweep.space: the rule of '{key}' knows no '{name}'.{did_you_mean(name, _RULES)}")
    if "choices" in rule:
        if len(rule) > 1 or not isinstance(rule["choices"], list) or not rule["choices"]:
            raise ConfigError(
                f"sweep.space: the choices of '{key}' are not a list of values, and nothing else: {dict(rule)}."
            )
        return rule["choices"]
    if (kind := _kind(key)) is None:
        raise ConfigError(f"sweep.space: '{key}' takes no numbers: give its `choices`, not {dict(rule)}.")
    numbers = [_number(rule[name]) for name in ("low", "high", "step") if name in rule]
    low, high = (_number(rule.get(name)) for name in ("low", "high"))
    if None in numbers or low is None or high is None or not low < high or (rule.get("log") and low <= 0):
        raise ConfigError(
            f"sweep.space: '{key}' needs `low` and `high`, numbers, the first below the second (and above 0 with "
            f"`log`), or `choices`: it has {dict(rule)}."
        )
    if kind is int and any(number != int(number) for number in numbers if number is not None):
        raise ConfigError(f"sweep.space: '{key}' is a whole number: draw it between such, not by {dict(rule)}.")
    try:
        draw(optuna.trial.FixedTrial({key: low}), key, rule)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sweep.space: '{key}' cannot be drawn by {dict(rule)}: {error}") from error
    return [low, high]


def _kind(key: str) -> type | None:
    """Return int or float, where a training's key takes either; None where it takes no numbers."""
    annotation = TrainingConfig.model_fields[key.removeprefix(_SECTION)].annotation
    return next((kind for kind in (int, float) if kind in {annotation, *get_args(annotation)}), None)


def _number(value: object) -> float | None:
    """Return a number, also of a text such as 1e-4, which YAML does not take for one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
