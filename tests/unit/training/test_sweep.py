"""The sweep: a space that cannot be searched is refused before anything is trained; the best is ready to use."""

import pytest
import yaml

from imago.config import Config, SyntheticConfig, build_config
from imago.data.synthetic import synthetic_dataset
from imago.errors import ConfigError
from imago.training.sweep import apply, check_space, sweep


def _config(space: dict[str, dict[str, object]], **sweep_options: object) -> Config:
    raw = {
        "model": {"weights": "none"},
        "data": {"image_size": 32},
        "training": {"epochs": 1},
        "sweep": {"space": space, **sweep_options},
    }
    return build_config(raw, where="a test")


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "empty"),
        ({"training.learning_rat": {"low": 0.1, "high": 1.0}}, "training.learning_rate"),
        ({"deploy.port": {"low": 1, "high": 2}}, "no key of training"),
        ({"training.batch_size": {"choice": [1]}}, "'choices'"),
        ({"training.batch_size": {"low": 1}}, "low.*high"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_space(_config(space))


def test_a_value_that_a_key_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        apply(_config({}), {"training.batch_size": 0})


@pytest.mark.slow
def test_the_best_trial_is_a_configuration_to_train_with() -> None:
    moths = synthetic_dataset(
        SyntheticConfig(species=2, per_class_train=6, per_class_val=3, per_class_test=2), 32, seed=0
    )
    told = []
    config = _config({"training.batch_size": {"choices": [4, 6]}}, trials=2)
    result = sweep(config, moths, on_trial=told.append)
    assert [trial.number for trial in told] == [0, 1]
    assert result.best.val_accuracy == max(trial.val_accuracy for trial in result.trials)
    ready = build_config(yaml.safe_load(result.configuration), where="the best")
    assert ready.training.batch_size == result.best.values["training.batch_size"]
