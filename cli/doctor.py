"""`run.py doctor`: whether this machine has what Imago needs, and what to do where it has not."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from imago.config import Config

GIGABYTE = 1_000_000_000
DISK_NEEDED, DISK_WANTED = 1, 5  # gigabytes
MEMORY_WANTED = 3  # gigabytes
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True)
class Row:
    """One thing that was looked at; `todo` says how to mend it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    todo: str = ""


Look = Callable[["Config"], Iterable[Row]]


@click.command()
@click.option("--config", default="training", show_default=True, metavar="NAME_OR_PATH", help="Configuration.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
@click.pass_context
def doctor(ctx: click.Context, config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Look at everything that Imago needs on this machine; exit with 1 where something needed fails."""
    from cli.logs import stdout_to_stderr
    from imago.config import load_config

    settings = load_config(config, overrides)
    with stdout_to_stderr():
        rows = [row for look in LOOKS for row in _looked(look, settings)]
    usable = all(row.state != "fail" for row in rows)
    if as_json:
        click.echo(json.dumps({"usable": usable, "rows": [asdict(row) for row in rows]}))
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            click.echo(f"{MARKS[row.state]}  {row.name:<{width}}  {row.detail}")
            if row.todo:
                click.echo(f"{'':{width + 6}}  → {row.todo}")
        click.echo("Ready." if usable else "Not ready: mend what failed, then run `python run.py doctor` again.")
    if not usable:
        ctx.exit(1)


def _looked(look: Look, config: "Config") -> list[Row]:
    """Return a look's rows; one that cannot even look is a failure, not the end of the others."""
    from imago.errors import ImagoError

    try:
        return list(look(config))
    except ImagoError as error:
        return [Row(_named(look), "fail", str(error))]
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        todo = "install Imago's packages anew: `make setup`" if isinstance(error, ImportError) else ""
        return [Row(_named(look), "fail", detail, todo)]


def _named(look: Look) -> str:
    return look.__name__.strip("_")


def _python(_: "Config") -> Iterator[Row]:
    from packaging.specifiers import SpecifierSet

    wanted, version = _project()["requires-python"], ".".join(map(str, sys.version_info[:3]))
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Row("python", "ok", f"{version} at {sys.executable}")
    else:
        yield Row("python", "fail", f"{version} is not {wanted}", f"install Python {wanted}, then `make setup`")


def _packages(_: "Config") -> Iterator[Row]:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in _project()["dependencies"]]
    wrong = 0
    for requirement in wanted:
        todo = f"pip install '{requirement}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong += 1
            yield Row(f"package {requirement.name}", "fail", "it is not installed", todo)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong += 1
            yield Row(f"package {requirement.name}", "fail", f"{found} is not {requirement.specifier}", todo)
    if not wrong:
        yield Row("packages", "ok", f"all {len(wanted)} as pyproject.toml asks")


def _project() -> dict[str, Any]:
    import tomllib

    from imago.home import ROOT

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _torch(_: "Config") -> Iterator[Row]:
    import imago.torchvision_compat  # noqa: F401, I001  (before torchvision)
    import torch
    import torchvision

    device = "CUDA" if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    yield Row("torch", "ok", f"{torch.__version__} on {device}; torchvision {torchvision.__version__} loads")


def _folders(_: "Config") -> Iterator[Row]:
    from imago import home

    for variable, folder in (("IMAGO_HOME", home.home()), ("IMAGO_REPORTS", home.reports())):
        if os.access(folder, os.W_OK | os.X_OK):
            yield Row(f"folder {folder.name}", "ok", str(folder))
        else:
            todo = f"give yourself the right, or set {variable} to another folder"
            yield Row(f"folder {folder.name}", "fail", f"{folder} cannot be written to", todo)


def _space(_: "Config") -> Iterator[Row]:
    import shutil

    import psutil

    from imago import home

    free = shutil.disk_usage(home.home()).free / GIGABYTE
    todo = f"free some space under {home.home()}, or set IMAGO_HOME to another disk"
    if free < DISK_NEEDED:
        yield Row("disk", "fail", f"{free:.1f} GB free; at least {DISK_NEEDED} GB are needed", todo)
    elif free < DISK_WANTED:
        yield Row("disk", "warn", f"{free:.1f} GB free", todo)
    else:
        yield Row("disk", "ok", f"{free:.0f} GB free")
    memory = psutil.virtual_memory().available / GIGABYTE
    if memory < MEMORY_WANTED:
        yield Row("memory", "warn", f"{memory:.1f} GB available", "close programs, or lower training.batch_size")
    else:
        yield Row("memory", "ok", f"{memory:.0f} GB available, {os.cpu_count()} processors")


def _stack(_: "Config") -> Iterator[Row]:
    import zenml  # noqa: F401  (its logging is configured on import)

    from cli import logs

    logs.configure(debug=False)
    from zenml.client import Client

    from stack import blueprint, register
    from stack.check import check

    name = register.chosen_name()
    if name not in blueprint.names():
        yield Row("stack", "ok", f"'{name}', which is not one of Imago's: `run.py stack list` shows those")
        return
    found = check(blueprint.load(name))
    wrong = [part for part in found if not part.ok]
    if not wrong:
        yield Row("stack", "ok", f"'{name}': {len(found)} components")
    for part in wrong:
        yield Row(f"stack {part.component}", "fail", f"{part.flavor}: {part.problem}", part.remedy)
    store = Client().zen_store
    yield Row("zenml server", "ok", "none, a database on this machine" if store.is_local_store() else store.url)


def _endpoint(config: "Config") -> Iterator[Row]:
    from imago.serving import deployment, processes
    from imago.serving.rollout import Deployment

    ports = set()
    for name in deployment.names():
        state, status = deployment.read(name), Deployment(name).status()
        if status.running and state.current:
            ports.add(state.current.config.port)
            yield Row("endpoint", "ok", f"{state.current.tag} at {status.endpoint}")
        elif state.current and state.current.process:
            todo = "`python run.py deployment start`, or `stop` if it is not to run"
            yield Row("endpoint", "warn", f"{state.current.tag} should be serving: {status.reason}", todo)
        elif state.current:
            yield Row("endpoint", "ok", f"{state.current.tag} is stopped")
    port = config.deploy.port
    if port in ports:
        yield Row("port", "ok", f"{port} is the endpoint's")
    elif processes.free(config.deploy.host, port):
        yield Row("port", "ok", f"{port} is free")
    else:
        todo = "end that program, or choose another with --set deploy.port=…"
        yield Row("port", "warn", f"{port} is held by {processes.holder(port)}", todo)


def _weights(config: "Config") -> Iterator[Row]:
    import imago.torchvision_compat  # noqa: F401, I001  (before timm)

    from imago.errors import ConfigError
    from imago.training.checkpoint import weights_state
    from imago.training.classifier import check_architecture, check_weights

    check_architecture(config.model.architecture)
    weights_state(config.model.weights)
    try:
        yield Row(
            "weights", "ok", check_weights(config.model.architecture, config.model.weights, config.data.image_size)
        )
    except ConfigError as error:
        yield Row("weights", "warn" if config.model.weights == "hub" else "fail", str(error))


LOOKS: tuple[Look, ...] = (_python, _packages, _torch, _folders, _space, _stack, _endpoint, _weights)
