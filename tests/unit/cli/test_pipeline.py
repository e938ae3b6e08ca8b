"""What a pipeline's command leaves on standard output, on standard error, and as its exit code."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

import cli
from cli import pipeline
from cli.pipeline import BASE
from imago.config import Config
from stack import register

VIT = ("--set", "model.architecture=test_vit", "--set", "model.weights=none")


def _main(monkeypatch: pytest.MonkeyPatch, run: Any, *options: str) -> int:
    monkeypatch.setattr(cli, "_environment", lambda _: None)
    monkeypatch.setattr(pipeline, "_run", run)
    monkeypatch.setattr(sys, "argv", ["run.py", "--pipeline", "training", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_model_that_had_to_be_promoted_and_was_not_exits_with_4_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = {"pipeline": "training", "status": "completed", "promoted": False, "reason": "Worse than the champion."}
    assert _main(monkeypatch, lambda *_, **__: outcome, "--json", "--require-promotion") == 4
    said = capfd.readouterr()
    assert json.loads(said.out) == outcome
    assert said.err == "error: Not promoted: Worse than the champion.\n"


def test_an_error_that_nobody_foresaw_is_one_line_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by\nzero")

    assert _main(monkeypatch, fail, "--json") == 1
    said = capfd.readouterr()
    assert json.loads(said.out)["exit_code"] == 1
    assert said.err.startswith("error: ZeroDivisionError: division by zero")
    assert said.err.count("\n") == 1


def test_containers_are_given_paths_without_links_or_steps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "moths").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "data" / "stones").mkdir()
    config = Config.model_validate(
        {
            "data": {"source": "../link/moths"},
            "model": {"weights": "hub"},
            "evaluation": {"outside": "../link/stones"},
        }
    )
    whole = pipeline._absolute(config)
    assert whole.data.source == str(tmp_path / "data" / "moths")
    assert whole.evaluation.outside == str(tmp_path / "data" / "stones")
    assert whole.model.weights == "hub"
    mounted = register.mounts(config)
    for place in (tmp_path / "data" / "moths", tmp_path / "data" / "stones"):
        assert mounted[str(place)] == {"bind": str(place), "mode": "ro"}


def _front(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json",), "Say which pipeline: --pipeline training|inference|monitoring|sweep"),
        (("--pipeline", "monitoring", "--require-promotion"), "--require-promotion is for the training pipeline"),
        (("--pipeline", "sweep", "--config", "training", "--dry-run"), "sweep.space is empty"),
        (("--pipeline", "training", "--dry-run", "--set", "evaluation.outside=/gone"), "no file or folder '/gone'"),
        (("--pipeline", "training", "--dry-run", "--set", "data.image_size=97", *VIT), "97×97 pixels (data."),
        (("--pipeline", "training", "--dry-run", "--set", "training.train_size=50", *VIT), "(training.train_size)"),
        (("--pipeline", "training", "--config", "demo", "--data", os.fsdecode(b"caf\xe9")), "is not UTF-8"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert _front(monkeypatch, *arguments) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]


FROM_NOTHING = ("--set", "model.weights=none", "--set", "deploy.enabled=false")


@pytest.mark.parametrize("also", [("--dry-run",), ()])
@pytest.mark.parametrize("name", ["training", "sweep"])
def test_a_policy_that_timm_does_not_know_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, also: tuple[str, ...]
) -> None:
    options = (*FROM_NOTHING, "--set", "training.rand_augment=m7", *also)
    assert _front(monkeypatch, "--pipeline", name, *options) == 2
    said = capfd.readouterr()
    assert "training.rand_augment: 'm7' is no policy of timm's RandAugment: write, say, rand-m7-n2." in said.err
    assert "load_data" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("also", [("--dry-run",), ()])
@pytest.mark.parametrize("name", ["training", "sweep"])
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("strategy=fdsp", "training.strategy: Lightning knows no 'fdsp'. Did you mean 'fsdp'"),
        ("strategy=fsdp", "take auto or ddp."),
        ("nodes=2", "call imago.training.trainer.train on each node"),
    ],
)
def test_devices_that_cannot_be_had_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    key: str,
    said: str,
    name: str,
    also: tuple[str, ...],
) -> None:
    assert _front(monkeypatch, "--pipeline", name, *FROM_NOTHING, "--set", f"training.{key}", *also) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


def test_a_policy_that_timm_knows_passes_a_dry_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*FROM_NOTHING, "--set", "training.rand_augment=rand-m7-n2")
    assert _front(monkeypatch, "--pipeline", "training", *options, "--dry-run", "--json") == 0
    assert json.loads(capfd.readouterr().out)["config"]["training"]["rand_augment"] == "rand-m7-n2"


@pytest.mark.parametrize("debug", [False, True])
def test_weights_that_do_not_fit_are_one_short_line_and_all_their_names_are_for_debug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, debug: bool
) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.safetensors")
    options = ("--set", "model.architecture=test_vit", "--set", f"model.weights={tmp_path / 'resnet.safetensors'}")
    shown = ("--debug",) if debug else ()
    assert _front(monkeypatch, "--pipeline", "training", *options, "--dry-run", "--json", *shown) == 2
    said = capfd.readouterr()
    *before, line = said.err.splitlines()
    assert line.endswith("more (--debug names them).")
    assert len(line.replace(str(tmp_path), "")) < 200
    assert line == f"error: {json.loads(said.out)['error']}"
    assert ("no blocks.0.attn.qkv.weight" in before) == debug
    assert debug or before == []


def test_a_group_without_a_command_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _front(monkeypatch, "data") == 2
    said = capfd.readouterr().err
    assert "Commands:\n" in said
    assert "error:" not in said


def test_every_pipeline_has_the_keys_that_all_share(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("training", "monitoring"):
        harmless = ("--set", "model.weights=none", "--set", "deploy.enabled=false", "--dry-run", "--json")
        assert _front(monkeypatch, "--pipeline", name, *harmless) == 0
        outcome = json.loads(capfd.readouterr().out)
        assert {"pipeline", "status", "run_id", "stack", *BASE} <= outcome.keys()


def test_inference_that_could_read_nothing_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "_run", lambda *_, **__: {"count": 2, "failed": 2, "predictions": "there.parquet"})
    assert _front(monkeypatch, "--pipeline", "inference", "--json") == 1
    said = capfd.readouterr()
    assert json.loads(said.out)["failed"] == 2
    assert said.err == "error: None of the 2 pictures could be read: see there.parquet\n"
