"""Weights from a hub that misbehaves come whole, or it is said why not."""

import hashlib
import io
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn

from imago.errors import ConfigError
from imago.training import hub
from imago.training.classifier import check_weights, create_classifier, license_of
from imago.training.misfits import missed
from tests.unit.training.hub import Behaviour, served
from tests.unit.training.moths import ARCHITECTURE, SIZE

PLACE = f"/{timm.get_pretrained_cfg(ARCHITECTURE).hf_hub_id}/resolve/main"


def weights_of(architecture: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return {name: value.clone() for name, value in timm.create_model(architecture).state_dict().items()}


LEARNED = weights_of(ARCHITECTURE)
FILES = {f"{PLACE}/model.safetensors": save(LEARNED)}
SIZE_OF_FILE = len(FILES[f"{PLACE}/model.safetensors"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no long pauses, and a part of the file kept where a download breaks off."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(hub, "_PAUSES", (0.0, 0.0))
    return tmp_path / "hub"


def create(monkeypatch: pytest.MonkeyPatch, address: str) -> nn.Module:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    return create_classifier(ARCHITECTURE, "hub", 3, SIZE)


def has_learned(model: nn.Module) -> bool:
    state = model.state_dict()
    return all(torch.equal(state[name], value) for name, value in LEARNED.items() if not name.startswith("classifier"))


def refused(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], behaviour: Behaviour | None = None) -> str:
    """What is said of weights that are refused, on one line, with what to do, from the cache too."""
    with served(files, behaviour) as address, pytest.raises(ConfigError) as refusal:
        create(monkeypatch, address)
    said = str(refusal.value)
    assert "\n" not in said
    assert "Or set model.weights to a checkpoint's file or folder, or to `none`" in said
    return said


def left_in(cache: Path) -> list[str]:
    """The files in the cache that hold any of the weights."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_the_hub_is_asked_for_pretrained_weights_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FILES) as address:
        assert has_learned(create(monkeypatch, address))
    again = create(monkeypatch, address)
    assert has_learned(again)
    assert license_of(again, "hub") == timm.get_pretrained_cfg(ARCHITECTURE).license == "apache-2.0"


def test_a_download_that_breaks_off_goes_on_where_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = Behaviour(breaks=1)
    with served(FILES, behaviour) as address:
        assert has_learned(create(monkeypatch, address))
    assert behaviour.downloads() == ["", f"bytes={SIZE_OF_FILE // 2 // 1000 * 1000}-"]


def test_a_download_that_cannot_go_on_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FILES, Behaviour(breaks=1, ranges=False)) as address:
        assert has_learned(create(monkeypatch, address))


def test_a_download_that_always_breaks_off_ends_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    said = refused(monkeypatch, FILES, Behaviour(breaks=99, ranges=False))
    assert "broke off 3 times, and the hub does not let it go on): try again later" in said
    assert left_in(cache) == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_hub_that_is_overloaded_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    behaviour = Behaviour(statuses=[(method, 503), (method, 502)])
    with served(FILES, behaviour) as address:
        assert has_learned(create(monkeypatch, address))
    assert behaviour.statuses == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_hub_that_stays_overloaded_is_given_up(monkeypatch: pytest.MonkeyPatch, cache: Path, method: str) -> None:
    behaviour = Behaviour(statuses=[(method, 503)] * 9)
    assert "answered 503 for timm/test_efficientnet" in refused(monkeypatch, FILES, behaviour)
    assert len(behaviour.statuses) == 6
    assert left_in(cache) == []


def test_weights_that_the_hub_does_not_have_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = Behaviour()
    assert "answered 404 for timm/test_efficientnet" in refused(monkeypatch, {}, behaviour)
    assert behaviour.asked == [("HEAD", "")] * 2


def test_half_a_file_of_unknown_length_is_refused_by_its_checksum(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    said = refused(monkeypatch, FILES, Behaviour(breaks=99, says_length=False))
    assert "model.safetensors came with another checksum than http://127.0.0.1" in said
    assert left_in(cache) == []


def test_a_file_with_another_checksum_is_refused_and_the_right_one_taken_later(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert "came with another checksum" in refused(monkeypatch, FILES, Behaviour(checksum="a" * 64))
    assert left_in(cache) == []
    with served(FILES) as address:
        assert has_learned(create(monkeypatch, address))


def test_weights_damaged_in_the_cache_are_fetched_again(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with served(FILES) as address:
        create(monkeypatch, address)
        (blob,) = (path for path in (cache.rglob("blobs/*")))
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
        assert f"will be fetched from {address}" in check_weights(ARCHITECTURE, "hub", SIZE)
        assert has_learned(create(monkeypatch, address))


def test_a_pickle_with_code_in_it_is_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "evil.bin")
    said = refused(monkeypatch, {f"{PLACE}/pytorch_model.bin": (tmp_path / "evil.bin").read_bytes()})
    assert "are not plain tensors, so they are not opened" in said


def test_a_file_that_is_no_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, {f"{PLACE}/model.safetensors": b"no checkpoint" * 20})
    assert "the hub's weights for 'test_efficientnet' do not fit: Error while deserializing header" in said


def test_weights_of_another_architecture_name_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, {f"{PLACE}/model.safetensors": save(weights_of("test_vit"))})
    assert (
        "lack conv_stem.weight, blocks.0.0.conv.weight, blocks.1.0.conv_exp.weight and 14 more (--debug names them)."
        in said
    )


def test_weights_with_a_layer_missing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    half = {name: value for name, value in LEARNED.items() if not name.startswith("conv_head")}
    assert "conv_head.weight" in refused(monkeypatch, {f"{PLACE}/model.safetensors": save(half)})


@pytest.mark.parametrize(
    ("left_out", "added", "said"),
    [
        ("bn1.running_var", {}, "do not fit the network: no bn1.running_var."),
        ("bn1.weight", {}, "do not fit the network: no bn1.weight."),  # 1 everywhere in a new network, too
        ("", {"blocks.9.weight": torch.zeros(2)}, "do not fit the network: blocks.9.weight is not in it."),
        ("", {"bn1.bias": torch.full_like(LEARNED["bn1.bias"], torch.inf)}, "hold NaN or infinity in bn1.bias."),
    ],
)
def test_weights_that_timm_would_take_without_a_word_are_refused(
    monkeypatch: pytest.MonkeyPatch, left_out: str, added: dict[str, torch.Tensor], said: str
) -> None:
    state = {name: value for name, value in LEARNED.items() if name != left_out} | added
    assert said in refused(monkeypatch, {f"{PLACE}/model.safetensors": save(state)})


def test_where_timm_does_not_take_all_what_ends_in_the_head_may_be_missing() -> None:
    names = SimpleNamespace(missing_keys=["head.norm.weight", "stem.bias"], unexpected_keys=["mask"])
    skipped = {"head.fc.weight"}
    assert missed([(names, False)], skipped) == ["no stem.bias"]
    assert missed([(names, True)], skipped) == ["no head.norm.weight", "no stem.bias", "mask is not in it"]


def test_what_counts_batches_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: value for name, value in LEARNED.items() if not name.endswith("num_batches_tracked")}
    with served({f"{PLACE}/model.safetensors": save(state)}) as address:
        create(monkeypatch, address)


def test_without_a_network_both_ways_out_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        with pytest.raises(ConfigError, match=r"cannot be had.*checkpoint's file or folder, or to `none`") as refusal:
            create(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert time.monotonic() - begun < 10
    assert "\n" not in str(refusal.value)


def test_the_hub_turned_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*or to `none`"):
        create_classifier(ARCHITECTURE, "hub", 3, SIZE)


ELSEWHERE = f"/releases/download/v1/{ARCHITECTURE}"


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> Path:
    """Let timm know of weights at a place on the web only; return the folder where they are kept."""
    monkeypatch.setattr("imago.training.classifier._hub_weights", lambda _: SimpleNamespace(hf_hub_id=None, url=url))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "torch" / "checkpoints"


@pytest.mark.parametrize("named", [True, False])
def test_weights_that_are_not_on_the_hub_come_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: bool
) -> None:
    content = pickled(LEARNED)
    name = f"{ELSEWHERE}-{hashlib.sha256(content).hexdigest()[:8]}.pth" if named else f"{ELSEWHERE}.pth"
    behaviour = Behaviour(breaks=1)
    with served({name: content}, behaviour) as address:
        kept = elsewhere(monkeypatch, tmp_path, address + name)
        with pytest.raises(
            ConfigError, match=r"cannot be had \(.*without sending complete message body.*\): try again later"
        ):
            create_classifier(ARCHITECTURE, "hub", 3, SIZE)
        assert list(kept.iterdir()) == []
        assert has_learned(create_classifier(ARCHITECTURE, "hub", 3, SIZE))
        assert has_learned(create_classifier(ARCHITECTURE, "hub", 3, SIZE))
    assert len(behaviour.downloads()) == 2


def test_weights_with_another_checksum_than_their_name_has_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"{ELSEWHERE}-01234567.pth"
    with served({name: pickled(LEARNED)}) as address:
        kept = elsewhere(monkeypatch, tmp_path, address + name)
        with pytest.raises(ConfigError, match="another checksum than its name says"):
            create_classifier(ARCHITECTURE, "hub", 3, SIZE)
        assert list(kept.iterdir()) == []
        kept.joinpath(Path(name).name).write_bytes(b"what an earlier version left half")
        with pytest.raises(ConfigError, match="another checksum than its name says"):
            create_classifier(ARCHITECTURE, "hub", 3, SIZE)


def pickled(state: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()
