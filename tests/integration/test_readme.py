"""What the README and the docs tell a reader to type can be typed: commands, options, keys, files and links exist.

The README's own commands, and the docs' quick ones, are run for real, in a place of their own.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from cli import front
from imago.config import SyntheticConfig, load_config
from imago.data.synthetic import synthetic_dataset, write_folder
from imago.serving.openapi import describe
from tests.workspace import ROOT, Outcome, Workspace

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"docker", "debootstrap", "tar", "export"}
"""Programs that are not ours; what of ours they name is checked as a path."""
PATHS = re.compile(
    r"`((?:imago|cli|configs|docs|steps|stack|materializers|tests|pipelines|notebooks|benchmarks)/[\w./-]*)`"
)


@dataclass(frozen=True)
class Command:
    """A line of a shell block, continued lines joined, comment and prompt gone."""

    document: Path
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def of_imago(self) -> bool:
        return self.words[:2] == ("python", "run.py")

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {shlex.join(self.words)}"


def blocks(document: Path, language: str) -> list[str]:
    """Return the text of a document's fenced blocks in a language."""
    return [text for kind, text in FENCE.findall(document.read_text(encoding="utf-8")) if kind == language]


def commands(document: Path) -> Iterator[Command]:
    """Return the commands of a document's shell blocks, then those that stand in a sentence or a table."""
    for block in blocks(document, "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s&&\s", line):
                if words := shlex.split(part, comments=True):
                    yield Command(document, tuple(words))
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    for line in re.findall(r"`((?:python run\.py|make) [^`]+)`", prose):
        yield Command(document, tuple(shlex.split(line)))


ALL = [command for document in DOCUMENTS for command in commands(document)]
OURS = [command for command in ALL if command.of_imago]


def targets() -> dict[str, str]:
    """Return the Makefile's targets with their recipes."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z]+):.*\n((?:\t.*\n)*)", text, re.MULTILINE))


def parse(arguments: list[str]) -> None:
    """Let click parse a command line, group by group, and check what configuration it names; nothing is run."""
    here = [str(ROOT / "README.md") if argument.endswith(".jpg") else argument for argument in arguments]
    context = front.make_context("run.py", here)
    parameters = dict(context.params)
    command: click.Command = front
    while isinstance(command, click.Group) and (context._protected_args or context.args):
        name, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        assert name is not None
        paths = {parameter: parameter.type for parameter in child.params if isinstance(parameter.type, click.Path)}
        for parameter in paths:  # a picture named in the docs does not have to be here
            parameter.type = click.Path()
        try:
            context = child.make_context(name, rest, parent=context)
        finally:
            for parameter, kind in paths.items():
                parameter.type = kind
        parameters |= context.params
        command = child
    assert not isinstance(command, click.Group) or command is front, "a group alone does nothing"
    load_config(parameters.get("config") or parameters.get("pipeline") or "training", parameters.get("overrides") or ())


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_line_of_ours_can_be_parsed_and_its_configuration_is_known(command: Command) -> None:
    if "--help" in command.words:
        with pytest.raises(click.exceptions.Exit):
            parse(list(command.words[2:]))
    else:
        parse(list(command.words[2:]))


def test_every_other_command_is_one_that_is_known_here(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    paths = describe("Imago", "1")["paths"]
    for command in (command for command in ALL if not command.of_imago):
        if command.name == "make":
            assert set(command.words[1:]) <= targets().keys(), command
        elif command.name == "curl":
            (url,) = (word for word in command.words if word.startswith("http://127.0.0.1:3000"))
            assert url.removeprefix("http://127.0.0.1:3000") in paths, command
        elif command.name == "pip":
            extras = re.findall(r"\[(.+)\]", " ".join(command.words))
            assert {extra for found in extras for extra in found.split(",")} <= project["project"][
                "optional-dependencies"
            ].keys(), command
        elif command.name == ".":
            assert command.words == (".", ".venv/bin/activate"), command
        elif command.name in {"zenml", "mlflow"}:
            assert_known(command, tmp_path)
        elif command.words[:3] == ("python", "-m", "pytest"):
            folder, *options = (word for word in command.words[3:] if "/" in word or word.startswith("--"))
            declared = re.findall(r'addoption\("(--\w+)"', (ROOT / folder / "conftest.py").read_text(encoding="utf-8"))
            assert set(options) <= set(declared), command
        else:
            assert command.name in ELSEWHERE, command


def assert_known(command: Command, folder: Path) -> None:
    """Look for the command's options in its program's help."""
    words = [word for word in command.words[1:] if word[0] not in "=:/." and "=" not in word and ":" not in word]
    said = help_of(command.name, tuple(word for word in words if not word.startswith("-")), folder)
    for word in words:
        assert not word.startswith("-") or word in said, f"{command}: there is no {word}"


@cache
def help_of(program: str, subcommands: tuple[str, ...], folder: Path) -> str:
    """Ask the program beside this Python for a subcommand's help."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *subcommands, "--help"],
        env={**os.environ, "ZENML_CONFIG_PATH": str(folder), "ZENML_ANALYTICS_OPT_IN": "false"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{program} {' '.join(subcommands)}: {done.stderr[-500:]}"
    return done.stdout + done.stderr


def test_what_make_runs_can_be_parsed_and_make_help_lists_every_target() -> None:
    recipes = targets()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name for name in recipes if f"make {name}" in shown} == recipes.keys()
    for name, recipe in recipes.items():
        filled = recipe.replace("$(DATA)", "FOLDER").replace("$(CONFIG)", "demo")
        for line in re.findall(r"run\.py (.*)", re.sub(r"\$\(if \w+,(.*?)\)", r"\1", filled)):
            try:
                parse(shlex.split(line))
            except click.ClickException as error:
                pytest.fail(f"make {name}: run.py {line}: {error.format_message()}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_every_file_that_is_named_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        assert path.is_file(), f"{document.name} links to {link}, which is not there"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}, f"no heading {anchor} in {target}"
    for name in PATHS.findall(text):
        written_by_the_reader = name.endswith("my-moths.yaml") or "NAME" in name
        assert written_by_the_reader or (ROOT / name).exists(), f"{document.name} names {name}, which is not there"


def test_every_yaml_block_is_a_configuration_or_an_expectation() -> None:
    import great_expectations.expectations as known

    from imago.config import build_config

    for document in DOCUMENTS:
        for block in blocks(document, "yaml"):
            content = yaml.safe_load(block)
            if isinstance(content, list):
                for entry in content:
                    name = "".join(part.capitalize() for part in entry["type"].split("_"))
                    assert hasattr(known, name), f"{document.name}: {entry['type']}"
            else:
                build_config(content, where=document.name)


def test_the_architecture_of_the_page_can_be_made_exported_and_asked(tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    from imago.serving.graph import write_graph
    from imago.training.classifier import create_classifier

    (code,) = blocks(ROOT / "docs" / "how-to" / "add-an-architecture.md", "python")
    module = tmp_path / "tinynet.py"
    module.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("tinynet", module)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tinynet"] = importlib.util.module_from_spec(spec)  # timm looks for a model's module by name
    spec.loader.exec_module(sys.modules["tinynet"])
    write_graph(create_classifier("tinynet", "none", 3, 64), 64, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    logits, embedding = session.run(["logits", "embedding"], {"image": np.zeros((5, 3, 64, 64), dtype=np.float32)})
    assert (logits.shape, embedding.shape) == ((5, 3), (5, 64))


def test_the_check_of_the_page_finds_a_picture_without_colour() -> None:
    import io

    from PIL import Image

    from imago.config import DataConfig
    from imago.data.dataset import ImageDataset
    from imago.data.statistics import compute_statistics

    (code,) = blocks(ROOT / "docs" / "how-to" / "add-a-check.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    files = []
    for colour in ((90, 90, 90), (90, 60, 30)):
        sink = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(sink, "PNG")
        files.append(sink.getvalue())
    dataset = ImageDataset.from_rows(["grey.png", "brown.png"], files, ["a", "b"], ["train"] * 2, origin="made here")
    found = names["colourless"](compute_statistics(dataset), DataConfig())  # type: ignore[operator]
    assert (found.count, found.pictures) == (1, ["grey.png"])
    assert "1 picture without colour" in found.sentence


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a reader would put in the place of the words in capitals."""
    folder = tmp_path_factory.mktemp("pictures")
    config = SyntheticConfig(species=3, per_class_train=16, per_class_val=6, per_class_test=6)
    dataset = synthetic_dataset(config, 64, seed=3)
    write_folder(dataset, folder / "labelled")
    write_folder(synthetic_dataset(config, 64, seed=4), folder / "other")
    (folder / "unlabelled").mkdir()
    for index in range(5):
        (folder / "unlabelled" / f"{index}.jpg").write_bytes(dataset.split("test").image(index))
    return {
        "FOLDER": str(folder / "labelled"),
        "OTHER_FOLDER": str(folder / "other"),
        "UNLABELLED": str(folder / "unlabelled"),
        "PICTURE.jpg": str(folder / "unlabelled" / "0.jpg"),
    }


def run(workspace: Workspace, command: Command, stand_ins: dict[str, str]) -> Outcome:
    """Run a command of ours; training is made small, and is given weights that need no network."""
    words = [stand_ins.get(word, word) for word in command.words[2:]]
    if "training" in words:
        smaller = {
            "model.weights": "none", "data.image_size": 64, "training.epochs": 1, "gate.min_accuracy": 0,
            "gate.max_calibration_error": 1, "evaluation.robustness": "false", "deploy.port": workspace.port,
        }  # fmt: skip
        words += [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]
    return workspace.run(*words)


@pytest.mark.slow
def test_the_readme_can_be_followed_from_its_first_command_to_its_last(
    workspace: Workspace, stand_ins: dict[str, str]
) -> None:
    followed = [command for command in commands(ROOT / "README.md") if command.of_imago]
    assert len(followed) >= 7
    said = {}
    try:
        for command in followed:
            done = run(workspace, command, stand_ins)
            assert done.code == 0, f"{command}\n{done.stderr[-2000:]}"
            assert done.stdout.strip(), f"{command} says nothing"
            said[" ".join(command.words[2:4])] = done.stdout
    finally:
        workspace.run("deployment", "stop")
    assert f"http://127.0.0.1:{workspace.port}/ui" in said["--pipeline training"]
    assert "5 pictures predicted" in said["--pipeline inference"]
    assert "Not enough data yet" in said["--pipeline monitoring"]
    assert "0.jpg: " in said["predict PICTURE.jpg"]
    assert "serves on" in said["deployment status"]
    assert workspace.processes() == []


def test_the_quick_commands_of_the_docs_run(
    stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("IMAGO_HOME", "IMAGO_REPORTS"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    quick = {
        command.words[2:]: command
        for command in OURS
        if command.document.name != "README.md" and (command.words[2] == "data" or "--dry-run" in command.words)
    }
    assert len(quick) >= 6
    for words, command in quick.items():
        offline = ("--set", "model.weights=none") if "--dry-run" in words else ()
        done = CliRunner().invoke(front, [*(stand_ins.get(word, word) for word in words), *offline])
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
    assert (tmp_path / "data" / "moths" / "test" / "velora_fasciata" / "0001.jpg").is_file()


def test_the_front_door_answers_help(workspace: Workspace) -> None:
    done = workspace.run("--help")
    assert done.code == 0
    assert "--pipeline [training|inference|monitoring|sweep]" in done.stdout
