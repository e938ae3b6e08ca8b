"""What a user may get wrong: one line that says what, where and what to do, the right exit code, nothing lost."""

import io
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imago.config import SyntheticConfig
from imago.data.synthetic import synthetic_dataset, write_folder
from tests.pictures import png_that_claims
from tests.workspace import TINY, Outcome, Workspace

pytestmark = pytest.mark.slow

MOTHS = synthetic_dataset(
    SyntheticConfig(species=3, per_class_train=8, per_class_val=3, per_class_test=3), image_size=48, seed=3
)
SERVES_NOTHING = ("--set", "deploy.enabled=false")
DEMO = ("--pipeline", "training", "--config", "demo", *TINY, *SERVES_NOTHING)
SMALL = (
    *("--set", "training.epochs=1", "--set", "data.image_size=32"),
    *("--set", "evaluation.robustness=false", "--set", "evaluation.bootstrap_samples=0"),
)


def refused(outcome: Outcome, code: int, *said: str) -> None:
    """Hold that a command ended as it should: its exit code, and one line on stderr with these words."""
    assert outcome.code == code, outcome.stderr
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr
    for word in said:
        assert word in lines[0]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Good pictures, as split folders."""
    write_folder(MOTHS, tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "training.epochs=-1"), ("training.epochs", "greater than or equal to 0")),
        (("--set", "training.epochs=0"), ("training.epochs", "pretrained weights")),
        (("--set", "training.epoch=3"), ("training.epoch", "training.epochs")),
        (("--set", "model.architecture=mobilenetv3_smal_100"), ("mobilenetv3_small_100",)),
        (("--data", "nowhere-at-all"), ("nowhere-at-all",)),
        (("--set", "model.weights=no/such/file.safetensors"), ("model.weights", "no/such/file.safetensors")),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(
    workspace: Workspace, options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    refused(workspace.run(*DEMO, "--dry-run", *options), 2, *said)


def test_under_debug_the_exit_code_and_the_json_stay(workspace: Workspace) -> None:
    outcome = workspace.run(*DEMO, "--dry-run", "--set", "training.epochs=0", "--json", "--debug")
    assert outcome.code == 2
    assert outcome.json["exit_code"] == 2
    assert "Traceback" in outcome.stderr
    assert workspace.run("data", "check", "--data", "nowhere-at-all", "--debug").code == 2


def test_a_taken_port_is_refused_before_anything_is_trained(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        refused(
            workspace.run(*DEMO, "--set", "deploy.enabled=true", "--set", f"deploy.port={port}"),
            5,
            f"Port {port} is used by",
        )


def test_an_unknown_command_and_configuration_offer_the_nearest(workspace: Workspace) -> None:
    refused(workspace.run("deploymnt", "status"), 2, "deployment")
    refused(workspace.run("--pipeline", "training", "--config", "dmo"), 2, "demo")


def test_no_network_and_no_weights_names_both_ways_out(workspace: Workspace, pictures: Path, tmp_path: Path) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
    outcome = workspace.run("--pipeline", "training", "--data", str(pictures), *SERVES_NOTHING, environment=nobody)
    refused(outcome, 2, "model.weights", "none", "file")


def test_weights_of_another_architecture_are_named(workspace: Workspace, pictures: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_efficientnet", num_classes=3).state_dict(), other)
    wrong = (*DEMO, "--data", str(pictures), "--set", f"model.weights={other}")
    refused(workspace.run(*wrong, "--dry-run"), 2, "other.safetensors", "test_resnet")
    refused(workspace.run(*wrong), 2, "other.safetensors", "test_resnet")


@pytest.mark.parametrize("kind", ["empty", "one class", "one picture"])
def test_data_that_cannot_be_trained_on_is_refused(
    workspace: Workspace, pictures: Path, tmp_path: Path, kind: str
) -> None:
    source = pictures
    if kind == "empty":
        source = tmp_path / "empty"
        source.mkdir()
    elif kind == "one class":
        source = tmp_path / "only"
        source.mkdir()
        (pictures / "train" / MOTHS.classes[0]).rename(source / MOTHS.classes[0])
    else:
        (pictures / "train" / "lonely").mkdir()
        (pictures / "train" / "lonely" / "1.jpg").write_bytes(_photograph())
    said = {"empty": "There are no pictures in", "one class": "one class only", "one picture": "lonely"}[kind]
    refused(workspace.run(*DEMO, "--data", str(source)), 3, said)


def test_unreadable_pictures_go_to_quarantine_with_their_reason(workspace: Workspace, pictures: Path) -> None:
    folder = pictures / "train" / MOTHS.classes[0]
    (folder / "text.jpg").write_text("no picture", encoding="utf-8")
    (folder / "truncated.jpg").write_bytes(_photograph()[:900])
    outcome = workspace.run("data", "check", "--config", "demo", "--data", str(pictures), "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["verdict"] == "accepted"
    assert outcome.json["pictures"]["quarantined"] == 2
    (undecodable,) = [check for check in outcome.json["checks"] if check["id"] == "undecodable"]
    assert sorted(Path(name).name for name in undecodable["pictures"]) == ["text.jpg", "truncated.jpg"]


def test_a_picture_of_3600_megapixels_is_set_aside_undecoded(workspace: Workspace, pictures: Path) -> None:
    bomb = png_that_claims(60_000, 60_000)
    (pictures / "train" / MOTHS.classes[0] / "bomb.png").write_bytes(bomb)
    outcome = workspace.run("data", "check", "--config", "demo", "--data", str(pictures), "--json")
    assert outcome.code == 0, outcome.stderr
    (found,) = [check for check in outcome.json["checks"] if check["id"] == "too_many_pixels"]
    assert [Path(name).name for name in found["pictures"]] == ["bomb.png"]
    assert outcome.json["pictures"]["quarantined"] == 1


def test_a_full_disk_leaves_nothing_that_is_read_as_whole(workspace: Workspace, pictures: Path) -> None:
    assert workspace.run("stack", "use", "local").code == 0
    stores = Path(workspace.environment["ZENML_CONFIG_PATH"]) / "local_stores"
    (artifacts,) = [folder for folder in stores.iterdir() if folder.name != "default_zen_store"]
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small += ['mount -t tmpfs -o size=64k none "$0" && exec "$@"', str(artifacts)]
    if subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a small disk in a namespace of its own")
    command = (*DEMO, *SMALL, "--data", str(pictures))
    refused(workspace.run(*command, before=small), 1, "No space left on device", str(artifacts))
    again = workspace.run(*command, "--json")
    assert again.code == 0, again.stderr
    assert again.json["status"] == "completed"


def test_a_manifest_that_names_missing_files_says_which(workspace: Workspace, pictures: Path) -> None:
    rows = ["path,label,split"]
    rows += [f"{id_},{label},{split}" for id_, label, split in zip(MOTHS.ids, MOTHS.labels, MOTHS.splits, strict=True)]
    rows.append(f"train/gone.jpg,{MOTHS.classes[0]},train")
    (pictures / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    outcome = workspace.run("data", "check", "--config", "demo", "--data", str(pictures / "list.csv"), "--json")
    assert outcome.code == 0, outcome.stderr
    (undecodable,) = [check for check in outcome.json["checks"] if check["id"] == "undecodable"]
    assert undecodable["pictures"] == ["train/gone.jpg"]


def _photograph() -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, "JPEG")
    return sink.getvalue()
