"""Reads weights from a file or folder: tensors only, never code."""

import argparse
import hashlib
import json
import struct
import warnings
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import safe_globals

from imago.errors import ConfigError, did_you_mean, first_line

State = dict[str, torch.Tensor]

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
UNREADABLE = (
    OSError, SafetensorError, RuntimeError, ValueError, EOFError, LookupError, struct.error, AssertionError,
    AttributeError, TypeError,
)  # fmt: skip
"""What torch and safetensors raise for bytes that are damaged; an UnpicklingError may mean code."""
_FOLDER_FILES = (*HUB_FILES, "weights.safetensors")
_CONTAINERS = ("state_dict_ema", "state_dict", "model_ema", "model")
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # of several devices, of torch.compile, of Lightning
_NUMBERS = [type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float16", "float32", "float64")]
_PLAIN: list[Any] = [
    argparse.Namespace,  # timm's train.py keeps its options, others a figure of numpy's
    multiarray.scalar,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *_NUMBERS,
]


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file or folder, and what the folder says of them."""

    origin: Path
    state: State
    config: dict[str, Any] = field(default_factory=dict)


def weights_state(weights: str) -> str:
    """Return a digest that changes when the weights may have: of a file's or folder's name, size and time."""
    if weights in {"hub", "none"}:
        return weights
    path = _weights_path(weights)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def described(weights: str) -> str:
    """Return what of the weights may be told to anybody: a file's or folder's name, without its place, and digest."""
    return weights if weights in {"hub", "none"} else f"{_weights_path(weights).name} ({weights_state(weights)})"


def read_checkpoint(weights: str) -> Checkpoint:
    """Read a file, or a folder in timm's layout or a model package's. Raises ConfigError where it cannot."""
    path = _weights_path(weights)
    if not path.is_dir():
        described = path.name in _FOLDER_FILES
        return Checkpoint(path, _read_state(path), _read_description(path.parent) if described else {})
    file = next((path / name for name in _FOLDER_FILES if (path / name).is_file()), None)
    if file is None:
        raise ConfigError(f"model.weights: the folder {path} has none of {', '.join(_FOLDER_FILES)}.")
    return Checkpoint(path, _read_state(file), _read_description(path))


def unwrapped(state: State, known: Container[str]) -> State:
    """Return the weights by the names that a network knows, without those of what it was wrapped in to be trained."""
    return {name if name in known else _bare(name): value for name, value in state.items()}


def _bare(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def _read_description(folder: Path) -> dict[str, Any]:
    """Return what timm's `config.json`, or a model package's `spec.json`, says of the weights beside it."""
    file = next((folder / name for name in ("config.json", "spec.json") if (folder / name).is_file()), None)
    if file is None:
        return {}
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.weights: {file} cannot be read: {error}") from error
    if not isinstance(described, dict):
        raise ConfigError(f"model.weights: {file} is not a JSON object.")
    return described


def _weights_path(weights: str) -> Path:
    path = Path(weights.removeprefix("local-dir:")).expanduser()
    if not path.exists():
        hint = did_you_mean(weights, ("hub", "none"))
        raise ConfigError(
            f"model.weights: '{weights}' is neither `hub`, `none` nor a file or folder that exists.{hint}"
        )
    return path.resolve()


def _read_state(path: Path) -> State:
    try:
        with safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except UNREADABLE as error:
        raise ConfigError(f"model.weights: {path} is not a readable checkpoint: {first_line(error)}") from error
    except UnpicklingError as error:
        raise ConfigError(
            f"model.weights: {path} is not a checkpoint of plain tensors, so it is not opened: save "
            "model.state_dict() as safetensors where it comes from."
        ) from error
    for name in _CONTAINERS:
        if isinstance(raw, dict) and isinstance(raw.get(name), dict):
            raw = raw[name]
    if not isinstance(raw, dict) or not raw or not all(isinstance(value, torch.Tensor) for value in raw.values()):
        raise ConfigError(f"model.weights: {path} holds no named tensors.")
    return {str(name): value for name, value in raw.items()}
