"""Tells what of given weights does not fit a network, what it lacks, and what of it is no number."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.models import _builder
from torch import nn

from imago.training.checkpoint import State

_CONSTANTS = ("num_batches_tracked", "relative_position_index", "attn_mask", "relative_coords_table")


def misfits(given: State, wanted: State, skipped: set[str]) -> list[str]:
    """Say of each weight, but the `skipped`, that is missing, of another shape, or not known to the network."""
    found = []
    for name, value in wanted.items():
        if not _counts(name, skipped):
            continue
        if name not in given:
            found.append(f"no {name}")
        elif given[name].shape != value.shape:
            found.append(f"{name} is {tuple(given[name].shape)}, not {tuple(value.shape)}")
    return found + _unknown([name for name in given if name not in wanted], skipped)


def not_finite(state: State, skipped: set[str]) -> list[str]:
    """Return the weights, but the `skipped`, that hold NaN or infinity."""
    return [name for name, value in state.items() if _counts(name, skipped) and not value.isfinite().all()]


@contextmanager
def overheard() -> Iterator[list[tuple[Any, bool]]]:
    """Hear which names missed when timm sets a network's weights, and whether it means to take all that a file has.

    timm itself lets any name miss where a head is for other classes; each family has its own converter of old names
    there, which cannot be had by itself.
    """
    heard: list[tuple[Any, bool]] = []
    load = _builder.load_pretrained

    def listen(model: nn.Module, *args: Any, strict: bool = True, **options: Any) -> None:
        hook = model.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda _, names: heard.append((names, strict))
        )
        try:
            load(model, *args, strict=strict, **options)
        finally:
            hook.remove()

    _builder.load_pretrained = listen
    try:
        yield heard
    finally:
        _builder.load_pretrained = load


def missed(heard: list[tuple[Any, bool]], skipped: set[str]) -> list[str]:
    """Say of what was heard which names, but the `skipped`, are missing or not known to the network.

    Where timm does not mean to take all, as of weights that were never taught to classify, all of the head may miss.
    """
    heads, found = _heads(skipped), []
    for names, strict in heard:
        missing = [name for name in names.missing_keys if _counts(name, skipped)]
        found += [f"no {name}" for name in missing if strict or name.split(".")[0] not in heads]
        found += _unknown(names.unexpected_keys, skipped) if strict else []
    return found


def _unknown(names: list[str], skipped: set[str]) -> list[str]:
    heads = _heads(skipped)
    return [f"{name} is not in it" for name in names if name not in skipped and name.split(".")[0] not in heads]


def _heads(skipped: set[str]) -> set[str]:
    """Return the parts of the network that the heads' weights lie in."""
    return {key.split(".")[0] for key in skipped}


def _counts(name: str, skipped: set[str]) -> bool:
    return name not in skipped and not name.endswith(_CONSTANTS)
