"""A classifier begins with the weights that were asked for, or says why it cannot."""

import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from imago.errors import ConfigError
from imago.training.checkpoint import described, weights_state
from imago.training.classifier import check_architecture, create_classifier, license_of, preprocessing_of
from imago.training.head import head_keys
from tests.unit.training.moths import ARCHITECTURE, SIZE


@pytest.fixture(scope="module")
def learned() -> dict[str, torch.Tensor]:
    """Weights as somebody else would have trained them, with a head for seven classes."""
    torch.manual_seed(7)
    model = timm.create_model(ARCHITECTURE, num_classes=7)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, learned: dict[str, torch.Tensor]) -> Path:
    save_file(learned, tmp_path / "model.safetensors")
    config = {"architecture": ARCHITECTURE, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def _has_backbone(model: nn.Module, learned: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return all(torch.equal(state[name], value) for name, value in learned.items() if not name.startswith("classifier"))


def test_an_unknown_architecture_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"'mobilnetv3_smal_100'.*'mobilenetv3_small_100'"):
        check_architecture("mobilnetv3_smal_100")


def test_none_is_a_random_start_from_the_seed() -> None:
    torch.manual_seed(1)
    one = create_classifier(ARCHITECTURE, "none", 3, SIZE)
    torch.manual_seed(1)
    same = create_classifier(ARCHITECTURE, "none", 3, SIZE)
    other = create_classifier(ARCHITECTURE, "none", 3, SIZE)
    assert torch.equal(one.conv_stem.weight, same.conv_stem.weight)
    assert not torch.equal(one.conv_stem.weight, other.conv_stem.weight)
    assert one.get_classifier().out_features == 3


def test_a_folder_gives_its_backbone_and_preprocessing_and_a_new_head(
    folder: Path, learned: dict[str, torch.Tensor]
) -> None:
    for weights in (str(folder), f"local-dir:{folder}", str(folder / "model.safetensors")):
        model = create_classifier(ARCHITECTURE, weights, 3, SIZE)
        assert _has_backbone(model, learned)
        assert model.get_classifier().weight.shape == (3, learned["classifier.weight"].shape[1])
        preprocessing = preprocessing_of(model, SIZE)
        assert (preprocessing.mean, preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_head_for_as_many_classes_is_new_too(folder: Path, learned: dict[str, torch.Tensor]) -> None:
    model = create_classifier(ARCHITECTURE, str(folder), 7, SIZE)
    assert not torch.equal(model.get_classifier().weight, learned["classifier.weight"])


def test_a_model_package_is_a_start_for_another_model(tmp_path: Path, learned: dict[str, torch.Tensor]) -> None:
    save_file(learned, tmp_path / "weights.safetensors")
    described = {"architecture": ARCHITECTURE, "preprocessing": {"mean": [0.3, 0.3, 0.3], "std": [0.2, 0.2, 0.2]}}
    (tmp_path / "spec.json").write_text(json.dumps(described))
    model = create_classifier(ARCHITECTURE, str(tmp_path), 3, SIZE)
    assert _has_backbone(model, learned)
    assert preprocessing_of(model, SIZE).mean == (0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    ("described", "licence"),
    [
        ({"pretrained_cfg": {"license": "mit"}}, "mit"),
        ({"pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}, "license": "cc-by-4.0"}, "cc-by-4.0"),
        ({"pretrained_cfg": {"license": "unknown"}}, "not stated"),
        ({"weights_license": "apache-2.0"}, "apache-2.0"),  # a model package's spec
        ({}, "not stated"),
    ],
)
def test_a_folder_names_the_licence_of_its_weights(folder: Path, described: dict[str, object], licence: str) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": ARCHITECTURE, **described}))
    assert license_of(create_classifier(ARCHITECTURE, str(folder), 3, SIZE), str(folder)) == licence


def test_a_random_start_has_no_licence_though_timm_names_one_for_the_hub() -> None:
    assert license_of(create_classifier(ARCHITECTURE, "none", 3, SIZE), "none") == "there are none"


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_a_torch_checkpoint_is_read_whatever_wrapped_the_network(
    tmp_path: Path, learned: dict[str, torch.Tensor], prefix: str
) -> None:
    wrapped = {f"{prefix}{name}": value for name, value in learned.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "last.pth")
    assert _has_backbone(create_classifier(ARCHITECTURE, str(tmp_path / "last.pth"), 3, SIZE), learned)


@pytest.mark.parametrize("metric", [71.5, np.float64(71.5), np.float32(71.5), np.int64(71)])
def test_what_timm_s_own_training_keeps_is_read(
    tmp_path: Path, learned: dict[str, torch.Tensor], metric: float
) -> None:
    kept = {"epoch": 3, "arch": ARCHITECTURE, "args": Namespace(lr=0.1, opt="sgd"), "metric": metric}
    torch.save({**kept, "state_dict": learned}, tmp_path / "last.pth.tar")
    assert _has_backbone(create_classifier(ARCHITECTURE, str(tmp_path / "last.pth.tar"), 3, SIZE), learned)


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "whole.pt")
    with pytest.raises(
        ConfigError, match=r"whole\.pt is not a checkpoint of plain tensors.*state_dict\(\) as safetensors"
    ):
        create_classifier(ARCHITECTURE, str(tmp_path / "whole.pt"), 3, SIZE)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match=f"{name} is not a"):
        create_classifier(ARCHITECTURE, str(tmp_path / name), 3, SIZE)


def test_weights_of_another_architecture_are_refused_by_what_does_not_fit(folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"holds weights of '{ARCHITECTURE}', not of model.architecture 'test_vit'"):
        create_classifier("test_vit", str(folder), 3, SIZE)
    (folder / "config.json").unlink()
    line = r"does not fit model.architecture 'test_vit': no cls_token, .* more \(--debug names them\)\."
    with pytest.raises(ConfigError, match=line) as refused:
        create_classifier("test_vit", str(folder), 3, SIZE)
    named = refused.value.__notes__[0].splitlines()
    backbone = [name for name in timm.create_model("test_vit").state_dict() if not name.startswith("head.")]
    assert {f"no {name}" for name in backbone} <= set(named)
    assert f"{len(named) - 3} more" in str(refused.value)


def test_weights_that_are_not_all_there_are_refused(folder: Path, learned: dict[str, torch.Tensor]) -> None:
    save_file(
        {name: value for name, value in learned.items() if name != "conv_stem.weight"}, folder / "model.safetensors"
    )
    with pytest.raises(ConfigError, match=r"no conv_stem\.weight\."):
        create_classifier(ARCHITECTURE, str(folder), 3, SIZE)


def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, learned: dict[str, torch.Tensor]) -> None:
    ruined = learned["bn1.running_mean"].clone()
    ruined[0] = torch.inf
    save_file({**learned, "bn1.running_mean": ruined}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"holds NaN or infinity in bn1\.running_mean: take another checkpoint"):
        create_classifier(ARCHITECTURE, str(folder), 3, SIZE)


def test_the_head_beside_the_head_is_new_too() -> None:
    keys = head_keys(timm.create_model("volo_d1_224", num_classes=3, device="meta"))
    assert keys == {"head.weight", "head.bias", "aux_head.weight", "aux_head.bias"}


def test_an_encoder_without_a_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Identity())
    with pytest.raises(ConfigError, match=r"'gemma4_vit_167m_enc' is an encoder only.*Did you mean 'gemma4_vit_167m'"):
        create_classifier("gemma4_vit_167m_enc", "none", 3, 224)


def test_position_embeddings_are_resized_to_the_pictures(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.safetensors")
    model = create_classifier("test_vit", str(tmp_path / "vit.safetensors"), 3, 64)
    kept = load_file(tmp_path / "vit.safetensors")
    assert model.pos_embed.shape[1] < kept["pos_embed"].shape[1]
    assert torch.equal(model.blocks[0].attn.qkv.weight, kept["blocks.0.attn.qkv.weight"])


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone' is neither `hub`, `none` nor a file or folder"):
        create_classifier(ARCHITECTURE, str(tmp_path / "gone"), 3, SIZE)
    with pytest.raises(ConfigError, match=r"has none of model\.safetensors"):
        create_classifier(ARCHITECTURE, str(tmp_path), 3, SIZE)


def test_an_architecture_says_which_size_it_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"'test_vit' does not take pictures of 8×8 pixels \(data\.image_size\)"):
        create_classifier("test_vit", "none", 3, 8)


def test_an_architecture_without_pretrained_weights_says_so() -> None:
    with pytest.raises(ConfigError, match=r"timm has no pretrained weights for 'convnext_atto_rms'"):
        create_classifier("convnext_atto_rms", "hub", 3, SIZE)


def test_the_state_of_weights_changes_with_the_file(folder: Path, learned: dict[str, torch.Tensor]) -> None:
    before = weights_state(str(folder))
    assert weights_state(str(folder)) == before
    save_file({**learned, "more": torch.zeros(3)}, folder / "model.safetensors")
    assert weights_state(str(folder)) != before
    assert weights_state("hub") == "hub"
    assert weights_state("none") == "none"


def test_weights_are_described_without_their_place(tmp_path: Path) -> None:
    file = tmp_path / "client-x" / "vit.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    said = described(str(file))
    assert re.fullmatch(r"vit\.safetensors \([0-9a-f]{16}\)", said)
    assert [described(name) for name in ("hub", "none")] == ["hub", "none"]
