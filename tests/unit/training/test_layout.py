"""The layout of a network's tensors is a matter of measuring, once."""

import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from imago.training import layout
from imago.training.layout import measured_memory_format, memory_format_of
from tests.unit.training.moths import ARCHITECTURE, SIZE


def test_networks_with_batch_norm_are_laid_out_channels_last_by_rule() -> None:
    assert memory_format_of(timm.create_model(ARCHITECTURE)) is torch.channels_last
    assert memory_format_of(timm.create_model("test_convnext")) is torch.contiguous_format
    assert memory_format_of(nn.Linear(2, 2)) is torch.contiguous_format


@pytest.mark.parametrize(
    ("fast", "slow", "expected"), [(1.0, 2.0, torch.channels_last), (0.99, 1.0, torch.contiguous_format)]
)
def test_what_was_clearly_faster_is_taken_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: float, slow: float, expected: torch.memory_format
) -> None:
    seconds = {torch.channels_last: fast, torch.contiguous_format: slow}
    monkeypatch.setattr(layout, "_seconds", lambda _model, _size, one: seconds[one])
    model = timm.create_model(ARCHITECTURE)
    assert measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path) is expected
    monkeypatch.setattr(layout, "_seconds", lambda *_: pytest.fail("measured again"))
    assert measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path) is expected
    (kept,) = tmp_path.iterdir()
    assert not kept.name.startswith(".")


def test_it_is_measured_anew_for_another_processor_and_not_for_another_name_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[torch.memory_format] = []
    monkeypatch.setattr(layout, "_seconds", lambda _model, _size, one: measured.append(one) or 1.0)
    model, here = timm.create_model(ARCHITECTURE), platform.uname()
    for name, machine in (("a", here.machine), ("b", here.machine), ("b", "riscv64")):
        known = SimpleNamespace(node=name, machine=machine, processor=here.processor)
        monkeypatch.setattr(platform, "uname", lambda known=known: known)
        measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path)
    assert len(measured) == 2 * 2  # layouts, processors


def test_measuring_leaves_network_and_random_state_as_they_were(tmp_path: Path) -> None:
    model = timm.create_model(ARCHITECTURE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path) in {torch.channels_last, torch.contiguous_format}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_damaged_note_is_measured_anew(tmp_path: Path) -> None:
    model = timm.create_model(ARCHITECTURE)
    measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text("")
    measured_memory_format(model, ARCHITECTURE, SIZE, tmp_path)
    assert kept.read_text() in {"channels_last", "contiguous"}
