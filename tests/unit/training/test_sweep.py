"""The sweep: a space that cannot be searched is refused before anything is trained; the best is ready to use."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import yaml
from safetensors.torch import save_file
from torch.multiprocessing.spawn import ProcessRaisedException

from imago.config import Config, SyntheticConfig, build_config
from imago.data.synthetic import synthetic_dataset
from imago.errors import ConfigError, DataRefused, ImagoError
from imago.history import EpochResult
from imago.training.space import apply, check_space
from imago.training.sweep import SweepResult, Trial, sweep
from tests.unit.training.moths import ARCHITECTURE, Silence
from tests.workspace import ROOT


def _config(
    space: dict[str, dict[str, object]], model: dict[str, str] | None = None, **sweep_options: object
) -> Config:
    raw = {
        "model": model or {"weights": "none"},
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
        ({"training.learning_rate": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}, "cannot be drawn"),
        ({"training.learning_rate": {"low": "1e-4", "high": "little"}}, "needs `low` and `high`, numbers"),
        ({"training.learning_rate": {"low": 0.1, "high": "inf"}}, "needs `low` and `high`, numbers"),
        ({"training.batch_size": {"low": 8.5, "high": 64.0}}, r"'training\.batch_size' is a whole number"),
        ({"training.batch_size": {"low": 8, "high": 64, "step": 0.5}}, r"'training\.batch_size' is a whole number"),
        ({"training.augment": {"low": 0, "high": 1}}, r"'training\.augment' takes no numbers: give its `choices`"),
        ({"training.strategy": {"choices": ["auto", "fsdp"]}}, "'fsdp' are not started by fork"),
        ({"training.nodes": {"low": 1, "high": 2}}, "on each node"),
        ({"training.rand_augment": {"choices": [None, "rand-m7-n2", "rand-m7-q2"]}}, "'rand-m7-q2' is no policy"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_space(_config(space))


def test_a_value_that_a_key_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        apply(_config({}), {"training.batch_size": 0})


MOTHS = synthetic_dataset(SyntheticConfig(species=2, per_class_train=6, per_class_val=3, per_class_test=2), 32, seed=0)
RATES = {"training.learning_rate": {"low": 0.0005, "high": 0.01, "log": True}}


def _sweep(config: Config, store: Path | None = None) -> tuple[SweepResult, list[int]]:
    told: list[int] = []
    return sweep(config, MOTHS, on_trial=lambda trial: told.append(trial.number), reporter=Silence(), store=store), told


def test_a_sweep_goes_on_where_it_was_cut_off_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    small = {"model": {"architecture": ARCHITECTURE, "weights": "none"}}
    one, three = (_config(RATES, trials=trials, **small) for trials in (1, 3))
    _, first = _sweep(one, tmp_path / "trials.log")
    resumed, rest = _sweep(three, tmp_path / "trials.log")
    whole, _ = _sweep(three)
    assert (first, rest) == ([0], [0, 1, 2])  # whoever listens now has them all
    assert resumed == whole


def test_what_was_being_tried_when_it_was_cut_off_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(RATES, trials=2, model={"architecture": ARCHITECTURE, "weights": "none"})
    with monkeypatch.context() as cut:
        cut.setattr("imago.training.sweep.train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _sweep(config, tmp_path / "trials.log")
    resumed, told = _sweep(config, tmp_path / "trials.log")
    assert told == [0, 1]
    assert resumed.trials[0].values == _sweep(config)[0].trials[0].values


KILLED = _config(RATES, trials=3, model={"architecture": ARCHITECTURE, "weights": "none"})


class Deadly(Silence):
    """A reporter that kills its process as `kill -9` does, after the first step of the second trial."""

    def advance(self, count: int = 1, loss: float | None = None) -> None:
        super().advance(count, loss)
        if [what for what, *_ in self.stretches] == ["epoch 1/1"] * 2:
            os.kill(os.getpid(), signal.SIGKILL)


def be_killed(store: str) -> None:
    """Search until the reporter has its way."""
    sweep(KILLED, MOTHS, reporter=Deadly(), store=Path(store))


def test_a_sweep_that_is_killed_in_the_middle_of_a_trial_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    store = tmp_path / "trials.log"
    code = f"import imago.torchvision_compat; from tests.unit.training.test_sweep import *; be_killed({str(store)!r})"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    reporter = Silence()
    resumed = sweep(KILLED, MOTHS, reporter=reporter, store=store)
    assert [what for what, *_ in reporter.stretches] == ["epoch 1/1"] * 2  # the first trial is not trained again
    assert resumed == _sweep(KILLED)[0]


def test_a_number_is_drawn_as_its_key_takes_it_however_yaml_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
        training.batch_size: {low: 8.0, high: 64.0, step: 8.0}
        training.weight_decay: {low: 0, high: 1}
    """
    monkeypatch.setattr("imago.training.sweep.train", _trained([0.5] * 4))
    values = [trial.values for trial in _sweep(_config(yaml.safe_load(text), trials=4))[0].trials]
    assert all(1e-4 <= drawn["training.learning_rate"] <= 1e-2 for drawn in values)
    assert all(type(drawn["training.batch_size"]) is int for drawn in values)
    assert {drawn["training.batch_size"] % 8 for drawn in values} == {0}
    assert len({drawn["training.weight_decay"] for drawn in values} - {0.0, 1.0}) == 4


def _trained(accuracies: list[float]) -> Callable[..., SimpleNamespace]:
    """Return what stands in for a training: two epochs of the next accuracy."""
    left = iter(accuracies)

    def trained(*_: object, on_epoch: Callable[[EpochResult], None], **__: object) -> SimpleNamespace:
        accuracy = next(left)
        for epoch in (1, 2):
            on_epoch(EpochResult(epoch, 1.0, 1.0, accuracy, 0.0))
        return SimpleNamespace(best=EpochResult(2, 1.0, 1.0, accuracy, 0.0))

    return trained


def test_a_trial_that_does_worse_than_the_others_is_given_up_once_they_tell_what_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("imago.training.sweep.train", _trained([0.9, 0.8, 0.1, 0.9, 0.7, 0.1]))
    config = _config(RATES | {"training.batch_size": {"choices": [4, 8]}}, trials=6)
    result, _ = _sweep(config, tmp_path / "trials.log")
    assert [trial.state for trial in result.trials] == ["complete"] * 5 + ["pruned"]
    assert "median" in str(result.trials[5].reason)
    assert [trial.val_accuracies for trial in result.trials[4:]] == [{1: 0.7, 2: 0.7}, {1: 0.1}]
    assert result.importance.keys() == {"training.learning_rate", "training.batch_size"}
    assert sum(result.importance.values()) == pytest.approx(1.0, abs=0.002)
    assert result.note is None
    assert _sweep(config, tmp_path / "trials.log")[0] == result


def test_processes_that_tell_of_their_epochs_at_the_end_are_given_up_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imago.training.sweep.train", _trained([0.9, 0.8, 0.1, 0.9, 0.7, 0.1]))
    config = _config(RATES, trials=6)
    several = config.model_copy(update={"training": config.training.model_copy(update={"devices": 2})})
    assert [trial.state for trial in _sweep(several)[0].trials] == ["complete"] * 6


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4], "takes 5 complete trials to tell, and there are 4: raise sweep.trials"),
        ([0.5] * 5, "do not differ enough"),
    ],
)
def test_where_the_trials_do_not_tell_what_it_depends_on_that_is_said(
    monkeypatch: pytest.MonkeyPatch, accuracies: list[float], said: str
) -> None:
    monkeypatch.setattr("imago.training.sweep.train", _trained(accuracies))
    result, _ = _sweep(_config(RATES | {"training.batch_size": {"choices": [4, 8]}}, trials=len(accuracies)))
    assert result.importance == {}
    assert said in str(result.note)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (RATES, "takes two keys to compare: sweep.space has one"),
        (RATES | {"training.batch_size": {"choices": [8]}}, "do not differ enough, in what was drawn"),
    ],
)
def test_a_key_alone_is_not_said_to_be_all_that_the_result_depends_on(
    monkeypatch: pytest.MonkeyPatch, space: dict[str, dict[str, object]], said: str
) -> None:
    monkeypatch.setattr("imago.training.sweep.train", _trained([0.1, 0.2, 0.3, 0.4, 0.5]))
    result, _ = _sweep(_config(space, trials=5))
    assert result.importance == {}
    assert said in str(result.note)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("division\nby zero"), "ZeroDivisionError: division"),
        (ProcessRaisedException("Traceback\n\nKeyError: 'gone'\n", 0, 1), "ProcessRaisedException: KeyError: 'gone'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_a_value_brings_about_is_a_failed_trial_with_its_reason_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    trained, errors = _trained([0.5, 0.6]), iter([None, error, None])

    def training(*args: object, **options: object) -> SimpleNamespace:
        if (raised := next(errors)) is not None:
            raise raised
        return trained(*args, **options)

    monkeypatch.setattr("imago.training.sweep.train", training)
    result, _ = _sweep(_config(RATES, trials=3))
    assert [trial.state for trial in result.trials] == ["complete", "failed", "complete"]
    assert result.trials[1].reason == said


def test_a_lack_of_memory_that_training_does_not_explain_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imago.training.sweep.train", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        _sweep(_config(RATES, trials=2))


def test_a_full_disk_is_no_trial_s_fault_and_the_sweep_goes_on_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, store = _config(RATES, trials=2, model={"architecture": ARCHITECTURE, "weights": "none"}), tmp_path / "log"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("imago.training.sweep.train", full)
        with pytest.raises(OSError, match="No space left"):
            sweep(config, MOTHS, store=store, reporter=Silence())
    assert [trial.state for trial in sweep(config, MOTHS, store=store, reporter=Silence()).trials] == ["complete"] * 2


def test_a_store_whose_last_line_the_disk_did_not_take_is_gone_on_with(tmp_path: Path) -> None:
    config, store = _config(RATES, trials=2, model={"architecture": ARCHITECTURE, "weights": "none"}), tmp_path / "log"
    whole, _ = _sweep(config, store)
    kept = store.read_bytes()
    store.write_bytes(kept[:-20])  # in the middle of a line
    for _ in range(2):  # what is written after it does not make it worse
        again, _ = _sweep(config, store)
        assert [trial.values for trial in again.trials] == [trial.values for trial in whole.trials]
        assert all(line.endswith(b"}\n") for line in store.read_bytes().splitlines(keepends=True))


def test_a_trial_that_was_over_before_the_search_was_told_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, store = _config(RATES, trials=2, model={"architecture": ARCHITECTURE, "weights": "none"}), tmp_path / "log"

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("optuna.study.Study.tell", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sweep(config, MOTHS, store=store, reporter=Silence())
    reporter = Silence()
    resumed = sweep(config, MOTHS, store=store, reporter=reporter)
    assert len(reporter.stretches) == 1  # the second trial's epoch
    assert resumed == sweep(config, MOTHS, reporter=Silence())


def test_a_sweep_ends_with_its_budget_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter(range(0, 10_000, 45))
    monkeypatch.setattr("imago.training.sweep.cpu_seconds", lambda: float(next(spent)))
    config = _config(RATES, trials=9, minutes=1, model={"architecture": ARCHITECTURE, "weights": "none"})
    assert len(_sweep(config)[0].trials) == 2


def test_the_budget_counts_what_the_processes_spend_that_a_training_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    work = "import time\nwhile time.process_time() < 0.4: pass"

    def trained(*_: object, **__: object) -> SimpleNamespace:
        subprocess.run([sys.executable, "-c", work], check=True)
        return SimpleNamespace(best=EpochResult(1, 1.0, 1.0, 0.5, 0.0))

    monkeypatch.setattr("imago.training.sweep.train", trained)
    assert len(_sweep(_config(RATES, trials=3, minutes=0.3 / 60))[0].trials) == 1


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"training.epochs": {"choices": [0, 1]}}, "training.epochs is 0"),
        (
            {"training.reject_coverage": {"choices": [None, 0.8]}, "training.reject_error": {"choices": [None, 0.1]}},
            "reject",
        ),
    ],
)
def test_values_that_cannot_be_trained_with_are_a_failed_trial_and_the_sweep_goes_on(
    space: dict[str, dict[str, object]], said: str, tmp_path: Path
) -> None:
    config = _config(space, trials=6, model={"architecture": ARCHITECTURE, "weights": "none"})
    result, _ = _sweep(config, tmp_path / "trials.log")
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert len(result.trials) == 6
    assert 0 < len(failed) < 6
    assert all(said in str(trial.reason) for trial in failed)
    assert result.best.state == "complete"
    assert _sweep(config, tmp_path / "trials.log")[0] == result


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": {"architecture": "test_vit", "weights": "{folder}/resnet.safetensors"}}, "does not fit .*test_vit"),
        ({"model": {"architecture": ARCHITECTURE, "weights": "hub"}}, "hub's weights for .* cannot be had"),
        ({"training": {"epochs": 0}}, "training.epochs is 0"),
        ({"training": {"rand_augment": "m7"}}, "'m7' is no policy"),
        ({"model": {"architecture": "test_vit", "weights": "none"}, "training": {"train_size": 40}}, "train_size"),
    ],
)
def test_what_every_trial_would_stumble_over_is_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, dict[str, object]], said: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    save_file(timm.create_model(ARCHITECTURE).state_dict(), tmp_path / "resnet.safetensors")
    plain = {"model": {"architecture": ARCHITECTURE, "weights": "none"}, "data": {"image_size": 32}}
    config = build_config({**plain, **options, "sweep": {"space": RATES, "trials": 2}}, where="a test")
    model = config.model.model_copy(update={"weights": config.model.weights.format(folder=tmp_path)})
    monkeypatch.setattr("imago.training.sweep.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=said):
        _sweep(config.model_copy(update={"model": model}), tmp_path / "trials.log")


def test_data_that_no_trial_can_train_with_are_refused() -> None:
    config = _config(RATES, trials=2, model={"architecture": ARCHITECTURE, "weights": "none"})
    rows = zip(MOTHS.ids, MOTHS.labels, strict=True)
    one = MOTHS.without([name for name, label in rows if label != MOTHS.classes[0]])
    with pytest.raises(DataRefused, match="two classes or more"):
        sweep(config, one, reporter=Silence())


def test_a_sweep_whose_every_trial_failed_says_why_and_can_be_tried_again(tmp_path: Path) -> None:
    config = _config({"training.epochs": {"choices": [0]}}, trials=2)
    for _ in range(2):
        told: list[Trial] = []
        with pytest.raises(ImagoError, match=r"All 2 trials of the sweep failed, .*: training\.epochs is 0"):
            sweep(config, MOTHS, on_trial=told.append, reporter=Silence(), store=tmp_path / "trials.log")
        assert [(trial.number, trial.state) for trial in told] == [(0, "failed"), (1, "failed")]


@pytest.mark.slow
def test_the_best_trial_is_a_configuration_to_train_with() -> None:
    told = []
    config = _config({"training.batch_size": {"choices": [4, 6]}}, trials=2)
    result = sweep(config, MOTHS, on_trial=told.append)
    assert [trial.number for trial in told] == [0, 1]
    assert result.best.val_accuracy == max(trial.val_accuracy for trial in result.trials)
    ready = build_config(yaml.safe_load(result.configuration), where="the best")
    assert ready.training.batch_size == result.best.values["training.batch_size"]
