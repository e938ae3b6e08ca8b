"""Makes a timm classifier with the weights that were asked for, or says why not: never a silent random start."""

import inspect
import sys
import textwrap
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from huggingface_hub import constants
from torch import nn

from imago.data.transforms import Preprocessing
from imago.errors import ConfigError, did_you_mean, first_line, some_of
from imago.training import hub
from imago.training.checkpoint import UNREADABLE, Checkpoint, State, read_checkpoint, unwrapped
from imago.training.head import head_keys
from imago.training.misfits import misfits, missed, not_finite, overheard

_SEED, _SHOWN = 0, 3
_WAYS_OUT = "Or set model.weights to a checkpoint's file or folder, or to `none` for a random start."


def create_classifier(architecture: str, weights: str, num_classes: int, image_size: int) -> nn.Module:
    """Make a timm model for pictures (N, 3, image_size, image_size) that tells `num_classes` apart.

    `weights` is `hub` (pretrained, through timm), `none` (random), a checkpoint (`.safetensors`; `.pt`, `.pth` or
    `.bin` without code in it), or a folder in timm's `local-dir:` layout. The head is always new. Raises ConfigError
    for an unknown architecture, weights that are not there or are another architecture's, and a size it cannot take.
    """
    check_architecture(architecture)
    if weights == "hub":
        model = _pretrained(architecture, num_classes, image_size)
    elif weights == "none":
        model = _random(architecture, num_classes, image_size)
    else:
        model = _from_checkpoint(architecture, read_checkpoint(weights), num_classes, image_size)
    try_out(model, architecture, image_size)
    return model


def check_architecture(architecture: str) -> None:
    """Raise ConfigError, with the nearest names, where timm has no such model."""
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise ConfigError(f"model.architecture: timm {timm.__version__} knows no '{architecture}'.{hint}")


def check_weights(architecture: str, weights: str, image_size: int) -> str:
    """Say where the weights come from; nothing is fetched from the hub for that.

    Raises ConfigError, as `create_classifier` does, where they cannot be had or do not fit.
    """
    if weights != "hub":
        create_classifier(architecture, weights, 2, image_size)
        return "a random start" if weights == "none" else f"{weights} fits {architecture}"
    check_architecture(architecture)
    config = _hub_weights(architecture)
    if config.hf_hub_id is None:
        return f"{config.url} will be fetched"
    try:
        if hub.cached(config.hf_hub_id):
            return f"{config.hf_hub_id} is in the hub's cache on this machine"
        hub.ask(config.hf_hub_id)
    except hub.NO_NETWORK as error:
        raise _not_to_be_had(architecture, error) from error
    return f"{config.hf_hub_id} will be fetched from {constants.ENDPOINT}"


def preprocessing_of(model: nn.Module, image_size: int) -> Preprocessing:
    """Return how a picture becomes this model's input, as its weights were trained."""
    config = getattr(model, "pretrained_cfg", None) or {}
    mean, std = config.get("mean", (0.485, 0.456, 0.406)), config.get("std", (0.229, 0.224, 0.225))
    return Preprocessing(image_size=image_size, mean=tuple(mean), std=tuple(std), scaled_decoding=True)


def license_of(model: nn.Module, weights: str) -> str:
    """Return the licence of the pretrained weights, as timm or the `config.json` beside them names it."""
    if weights == "none":
        return "there are none"
    named = str((getattr(model, "pretrained_cfg", None) or {}).get("license") or "unknown")
    return "not stated" if named == "unknown" else named


def _random(architecture: str, num_classes: int, image_size: int, **options: Any) -> nn.Module:
    if has_fixed_size(architecture):
        options["img_size"] = image_size
    try:
        model: nn.Module = timm.create_model(architecture, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:
        raise ConfigError(_unfit(architecture, image_size, error)) from error
    if not hasattr(model, "get_classifier"):
        hint = did_you_mean(architecture.removesuffix("_enc"), timm.list_models(exclude_filters="*_enc"))
        raise ConfigError(f"model.architecture: '{architecture}' is an encoder only, without a classifier.{hint}")
    return model


def has_fixed_size(architecture: str) -> bool:
    """Tell whether the network is built for pictures of one size, as most transformers are."""
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _pretrained(architecture: str, num_classes: int, image_size: int) -> nn.Module:
    config = _hub_weights(architecture)
    try:
        overlay = {"file": hub.fetched(config.hf_hub_id) if config.hf_hub_id else hub.fetched_from(config.url)}
    except hub.NO_NETWORK as error:
        raise _not_to_be_had(architecture, error) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        start = _random(architecture, num_classes, image_size).state_dict()
        torch.manual_seed(_SEED)
        try:
            with overheard() as heard:
                model = _random(architecture, num_classes, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        except hub.NO_NETWORK as error:
            raise _not_to_be_had(architecture, error) from error
        except UNREADABLE as error:
            code = isinstance(error.__cause__, UnpicklingError)
            why = "are not plain tensors, so they are not opened" if code else f"do not fit: {_on_a_line(error)}"
            raise ConfigError(f"model.weights: the hub's weights for '{architecture}' {why}. {_WAYS_OUT}") from error
    skipped = head_keys(model)
    for why, names in (
        ("lack", _unchanged(start, model, skipped)),
        ("do not fit the network:", missed(heard, skipped)),
        ("hold NaN or infinity in", not_finite(model.state_dict(), skipped)),
    ):
        if names:
            said = f"model.weights: the hub's weights for '{architecture}' {why} {_some(names)}. {_WAYS_OUT}"
            raise _with_all(ConfigError(said), names)
    return model


def _hub_weights(architecture: str) -> Any:
    """Return timm's description of the pretrained weights. Raises ConfigError where it has none."""
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if config is None or not config.has_weights:
        hint = did_you_mean(architecture, timm.list_pretrained())
        raise ConfigError(f"model.weights: timm has no pretrained weights for '{architecture}'; `none` is left.{hint}")
    return config


def _not_to_be_had(architecture: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"model.weights: the hub's weights for '{architecture}' cannot be had ({_on_a_line(error)}): try again later. "
        f"{_WAYS_OUT}"
    )


def _unchanged(start: State, model: nn.Module, skipped: set[str]) -> list[str]:
    """Return which weights, but the head's, are those of the random start."""
    return [
        name
        for name, value in model.named_parameters()
        if name not in skipped and value.min() != value.max() and torch.equal(value, start[name])
    ]


def _from_checkpoint(architecture: str, checkpoint: Checkpoint, num_classes: int, image_size: int) -> nn.Module:
    theirs = str(checkpoint.config.get("architecture", architecture))
    if theirs.split(".")[0] != architecture.split(".")[0]:
        raise ConfigError(
            f"model.weights: {checkpoint.origin} holds weights of '{theirs}', not of model.architecture "
            f"'{architecture}': change one of the two."
        )
    model = _random(architecture, num_classes, image_size)
    wanted = model.state_dict()
    given = unwrapped(checkpoint.state, wanted)
    skipped = head_keys(model)
    if misfits(given, wanted, skipped):
        given = _filtered(architecture, given, model)
    if found := misfits(given, wanted, skipped):
        said = f"model.weights: {checkpoint.origin} does not fit model.architecture '{architecture}': {_some(found)}."
        raise _with_all(ConfigError(said), found)
    if found := not_finite(given, skipped):
        said = f"model.weights: {checkpoint.origin} holds NaN or infinity in {_some(found)}: take another checkpoint."
        raise _with_all(ConfigError(said), found)
    model.load_state_dict(
        {name: given.get(name, value) for name, value in wanted.items() if name not in skipped}, False
    )
    described = checkpoint.config
    stored = described.get("pretrained_cfg") or described.get("preprocessing") or described
    kept = {key: tuple(stored[key]) for key in ("mean", "std") if key in stored}
    named = stored.get("license") or described.get("license") or described.get("weights_license")
    known = getattr(model, "pretrained_cfg", None) or {}
    model.pretrained_cfg = {**known, **kept, "license": named}  # type: ignore[assignment]
    return model


def _filtered(architecture: str, state: State, model: nn.Module) -> State:
    """Give timm's own converter for this family a try: it renames old keys and resizes position embeddings."""
    module = sys.modules[timm.model_entrypoint(architecture.split(".")[0]).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        both = len(inspect.signature(convert).parameters) > 1
        converted: State = convert(dict(state), model) if both else convert(dict(state))
    except (KeyError, RuntimeError, ValueError, IndexError, AttributeError):
        return state
    return converted


def try_out(model: nn.Module, architecture: str, image_size: int, key: str = "data.image_size") -> None:
    """Raise ConfigError, which names the `key`, where the model does not take pictures of this size."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model.forward_head(model.forward_features(torch.zeros(1, 3, image_size, image_size)))  # type: ignore[operator]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(_unfit(architecture, image_size, error, key)) from error
    finally:
        model.train(training)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ConfigError(f"model.architecture: '{architecture}' does not give one row of logits a picture.")


def _unfit(architecture: str, image_size: int, error: Exception, key: str = "data.image_size") -> str:
    return (
        f"model.architecture: '{architecture}' does not take pictures of {image_size}×{image_size} pixels "
        f"({key}): {first_line(error)}"
    )


def _some(names: list[str]) -> str:
    return some_of(names, most=_SHOWN) + (" (--debug names them)" if len(names) > _SHOWN else "")


def _with_all(error: ConfigError, names: list[str]) -> ConfigError:
    """Note all the names on the error, whose line has a few: its traceback shows them."""
    error.add_note("\n".join(names))
    return error


def _on_a_line(error: BaseException) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" …").rstrip(".")
