"""What a stack is to be made of: read from `configs/stacks/NAME.yaml`, with the environment filled in."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imago import home
from imago.config import CONFIGS
from imago.errors import ConfigError, did_you_mean

FOLDER = CONFIGS / "stacks"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")
_KEYS = {"stack", "components", "image", "run_args"}
_COMPONENT_KEYS = {"name", "flavor", "config", "secret", "optional"}


@dataclass(frozen=True)
class Component:
    """One component: its type and flavor as ZenML names them, and the variables that are not set."""

    type: str
    name: str
    flavor: str
    config: dict[str, Any] = field(default_factory=dict)
    secret: dict[str, str] = field(default_factory=dict)  # configuration that only ZenML's secret store sees
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blueprint:
    """A stack: the name it is asked for by, the name it has in ZenML, and its components."""

    name: str
    stack: str
    summary: str
    components: tuple[Component, ...]
    image: str | None = None  # where steps run in containers
    run_args: dict[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """The environment variables that it needs and that are not set."""
        return tuple(dict.fromkeys(name for component in self.components for name in component.missing))

    def component(self, kind: str) -> Component | None:
        return next((component for component in self.components if component.type == kind), None)


def names() -> list[str]:
    """Return the names of the stacks that there are files for."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def by_stack(stack: str) -> Blueprint | None:
    """Return the blueprint of a ZenML stack, if it is one of ours."""
    return next((found for name in names() if (found := load(name)).stack == stack), None)


def load(name: str) -> Blueprint:
    """Read a blueprint. Raises ConfigError, with the nearest name, for one that is not there or cannot be read."""
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise ConfigError(
            f"No stack '{name}' in {FOLDER}: there are {', '.join(names())}.{did_you_mean(name, names())}"
        )
    text = path.read_text(encoding="utf-8")
    try:
        raw = yaml.safe_load(text)
        unknown = set(raw) - _KEYS
        if unknown:
            raise ConfigError(f"Unknown key '{min(unknown)}' in {path}.{did_you_mean(min(unknown), _KEYS)}")
        return Blueprint(
            name=name,
            stack=raw["stack"],
            summary=_summary(text),
            components=tuple(_components(raw["components"], path)),
            image=_fill(raw["image"], []) if "image" in raw else None,
            run_args=raw.get("run_args", {}),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"The stack in {path} cannot be read: {' '.join(str(error).split())}") from error


def _components(raw: dict[str, dict[str, Any]], path: Path) -> Iterator[Component]:
    for kind, options in raw.items():
        unknown = set(options) - _COMPONENT_KEYS
        if unknown:
            hint = did_you_mean(min(unknown), _COMPONENT_KEYS)
            raise ConfigError(f"Unknown key '{kind}.{min(unknown)}' in {path}.{hint}")
        missing: list[str] = []
        config = {key: _fill(value, missing) for key, value in options.get("config", {}).items()}
        secret = {key: _fill(value, missing) for key, value in options.get("secret", {}).items()}
        component = Component(
            type=kind,
            name=options["name"],
            flavor=_fill(options["flavor"], missing),
            config={key: value for key, value in config.items() if value != ""},
            secret=secret,
            missing=tuple(missing),
        )
        if not (missing and options.get("optional")):
            yield component


def _fill(value: Any, missing: list[str]) -> Any:
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        name = match["name"]
        found = str(home.home()) if name == "IMAGO_HOME" else os.environ.get(name) or match["default"]
        if found is None:
            missing.append(name)
        return found or ""

    return _VARIABLE.sub(one, value)


def _summary(text: str) -> str:
    lines = text.splitlines()
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("#") else ""
