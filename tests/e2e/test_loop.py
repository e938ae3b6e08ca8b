"""The whole loop as a user turns it: train, serve, ask, cache, edit, predict, monitor, stop."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from imago.config import SyntheticConfig
from imago.data.synthetic import synthetic_dataset
from tests.workspace import TINY, Outcome, Workspace

pytestmark = pytest.mark.slow

LENIENT = ("--set", "gate.max_accuracy_drop=1.0", "--set", "gate.significance=0.000001", "--set", "seed=1")

RECORDS = """
import json
from zenml.client import Client
from stack import register
from stack.production import production_version
register.ensure()
stack = Client().active_stack
services = stack.model_deployer.find_model_server(model_name="moths-demo", model_version="1")
registered = stack.model_registry.mlflow_client.search_model_versions("name = 'moths-demo'")
print(json.dumps({
    "production": production_version("moths-demo").number,
    "services": [[service.config.model_version, service.is_running] for service in services],
    "registered": sorted(version.tags["zenml_version"] for version in registered),
}))
"""


@pytest.fixture(scope="module")
def settings(workspace: Workspace) -> tuple[str, ...]:
    """A training run of the demo, made smaller."""
    return (
        *("--config", "demo", "--json"),
        *("--set", f"deploy.port={workspace.port}", "--set", "deploy.reports=true"),
        *TINY,
        *("--set", "training.epochs=6", "--set", "data.image_size=48"),
        *("--set", "data.synthetic.per_class_train=24"),
        *("--set", "gate.min_accuracy=0.3"),
        *("--set", "gate.max_calibration_error=1.0"),
        *("--set", "evaluation.robustness=false"),
    )


@pytest.fixture(scope="module")
def trained(workspace: Workspace, settings: tuple[str, ...]) -> Iterator[Outcome]:
    """The first training run, whose endpoint is stopped at the end."""
    yield workspace.run("--pipeline", "training", *settings)
    workspace.run("deployment", "stop")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve test pictures, a text called .jpg and a truncated JPEG, without labels."""
    folder = tmp_path_factory.mktemp("pictures")
    dataset = synthetic_dataset(SyntheticConfig(), 112, seed=7).split("test")
    for index in range(12):
        (folder / f"{index:02}.jpg").write_bytes(dataset.image(index * 9))
    (folder / "text.jpg").write_text("no picture", encoding="utf-8")
    (folder / "truncated.jpg").write_bytes(dataset.image(0)[:400])
    return folder


def test_training_promotes_serves_and_prints_one_json_object(trained: Outcome, workspace: Workspace) -> None:
    assert trained.code == 0, trained.stderr
    outcome = trained.json
    assert outcome["pipeline"] == "training"
    assert outcome["status"] == "completed"
    assert outcome["model"]["version"] == "1"
    assert outcome["model"]["stage"] == "production"
    assert outcome["promoted"] is True
    assert outcome["metrics"]["test_accuracy"] > 0.4
    assert outcome["endpoint"] == f"http://127.0.0.1:{workspace.port}"
    begins = {"data": "<html", "evaluation": "<html", "card": "# moths-demo", "curves": "<svg"}
    assert outcome["reports"].keys() == begins.keys()
    for name, report in outcome["reports"].items():
        assert begins[name] in Path(report).read_text(encoding="utf-8")
    assert "<b>Promoted.</b> First of its name" in Path(outcome["reports"]["evaluation"]).read_text(encoding="utf-8")
    assert outcome["reports"]["curves"].endswith("/figures/moths-demo-1-curves.svg")


def test_the_endpoint_answers_and_names_its_version(trained: Outcome, pictures: Path) -> None:
    endpoint = trained.json["endpoint"]
    with (pictures / "00.jpg").open("rb") as picture:
        answer = httpx.post(f"{endpoint}/predict", files={"image": picture})
    assert answer.status_code == 200
    assert answer.json()["model"]["version"] == "1"
    assert sum(entry["probability"] for entry in answer.json()["predictions"]) == pytest.approx(1, abs=0.05)
    assert httpx.get(f"{endpoint}/ui").status_code == 200
    with (pictures / "text.jpg").open("rb") as text:
        refused = httpx.post(f"{endpoint}/predict", files={"image": text})
    assert refused.status_code in {415, 422}
    assert refused.json()["error"]["message"]


def test_the_endpoint_shows_the_reports_of_what_it_serves(trained: Outcome) -> None:
    url = f"{trained.json['endpoint']}/reports"
    for name, file in {"data": "data.html", "evaluation": "evaluation.html", "card": "MODEL_CARD.md"}.items():
        assert httpx.get(f"{url}/{file}").text == Path(trained.json["reports"][name]).read_text(encoding="utf-8")
    assert "<b>deployed</b> moths-demo:1-" in httpx.get(url).text


def test_editing_nothing_runs_no_step_again(trained: Outcome, workspace: Workspace, settings: tuple[str, ...]) -> None:
    assert trained.code == 0
    again = workspace.run("--pipeline", "training", *settings)
    assert again.code == 0, again.stderr
    assert again.json["cached"] is True
    assert again.json["model"] == trained.json["model"]
    assert again.json["endpoint"] == trained.json["endpoint"]


def test_inference_predicts_every_file_and_the_same_as_the_endpoint(
    trained: Outcome, workspace: Workspace, pictures: Path
) -> None:
    import pyarrow.parquet as pq

    done = workspace.run(
        "--pipeline", "inference", "--config", "inference", "--json", "--data", pictures.as_uri(),
        "--set", f"model.name={trained.json['model']['name']}",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert (done.json["count"], done.json["failed"]) == (14, 2)
    rows = {row["path"]: row for row in pq.read_table(done.json["predictions"]).to_pylist()}
    assert rows["text.jpg"]["reason"]
    assert rows["text.jpg"]["label"] is None
    for name in ("00.jpg", "05.jpg", "11.jpg"):
        answer = httpx.post(
            f"{trained.json['endpoint']}/predict", files={"image": (pictures / name).read_bytes()}
        ).json()["predictions"][0]
        assert answer["label"] == rows[name]["label"]
        assert answer["probability"] == pytest.approx(rows[name]["probability"], abs=1e-4)


def test_monitoring_has_a_verdict(trained: Outcome, workspace: Workspace, pictures: Path) -> None:
    endpoint = trained.json["endpoint"]
    name = f"model.name={trained.json['model']['name']}"
    dark = np.zeros((112, 112, 3), dtype=np.uint8)
    from PIL import Image

    for index in range(60):
        dark[:] = index
        Image.fromarray(dark).save(pictures / "dark.png")
        httpx.post(f"{endpoint}/predict", files={"image": (pictures / "dark.png").read_bytes()}).raise_for_status()
    (pictures / "dark.png").unlink()
    done = workspace.run("--pipeline", "monitoring", "--json", "--set", name, "--set", "monitoring.min_predictions=20")
    assert done.code == 0, done.stderr
    assert done.json["verdict"] == "drifted"
    assert done.json["window"]["count"] >= 60
    drift = Path(done.json["reports"]["drift"]).read_text(encoding="utf-8")
    assert httpx.get(f"{endpoint}/reports/drift.html").text == drift


def test_editing_a_function_a_step_calls_runs_that_step_again(
    trained: Outcome, workspace: Workspace, settings: tuple[str, ...]
) -> None:
    assert trained.code == 0
    with (workspace.code / "imago" / "evaluation" / "metrics.py").open("a", encoding="utf-8") as file:
        file.write("\n# edited\n")
    again = workspace.run("--pipeline", "training", *settings)
    assert again.code == 0, again.stderr
    assert "evaluate_model: done" in again.stderr
    assert "train_model: cached" in again.stderr


def test_stop_start_and_status_tell_the_truth(trained: Outcome, workspace: Workspace) -> None:
    assert trained.code == 0
    assert workspace.run("deployment", "status", "--json").json["running"] is True
    stopped = workspace.run("deployment", "stop", "--json")
    assert stopped.code == 0, stopped.stderr
    status = workspace.run("deployment", "status", "--json").json
    assert status["running"] is False
    assert workspace.processes() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(trained.json["endpoint"] + "/livez")
    started = workspace.run("deployment", "start", "--json")
    assert started.code == 0, started.stderr
    assert httpx.get(trained.json["endpoint"] + "/readyz").status_code == 200


def test_a_port_in_use_exits_5_and_the_version_before_still_serves(
    trained: Outcome, workspace: Workspace, settings: tuple[str, ...]
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        outcome = workspace.run("--pipeline", "training", *settings, "--set", f"deploy.port={port}")
    assert outcome.code == 5, outcome.stderr
    assert str(port) in outcome.json["error"]
    assert httpx.get(trained.json["endpoint"] + "/readyz").status_code == 200


def test_a_deployment_that_fails_gives_production_back(
    trained: Outcome, workspace: Workspace, settings: tuple[str, ...]
) -> None:
    assert trained.code == 0
    outcome = workspace.run("--pipeline", "training", *settings, *LENIENT, "--set", "deploy.timeout_seconds=0.01")
    assert outcome.code == 5, outcome.stderr
    assert "moths-demo:1" in outcome.json["error"]
    assert workspace.run("deployment", "status", "--json").json["model"]["version"] == "1"
    assert workspace.python(RECORDS)["production"] == "1"


def test_a_rollback_serves_the_version_before_and_lets_it_stand_for_production(
    trained: Outcome, workspace: Workspace, settings: tuple[str, ...]
) -> None:
    second = workspace.run("--pipeline", "training", *settings, *LENIENT)
    assert second.code == 0, second.stderr
    assert second.json["promoted"] is True
    version = second.json["model"]["version"]
    assert version != "1"
    status = workspace.run("deployment", "status", "--json").json
    assert (status["model"]["version"], status["previous"]["version"]) == (version, "1")
    back = workspace.run("deployment", "rollback", "--json")
    assert back.code == 0, back.stderr
    assert back.json["model"]["version"] == "1"
    assert httpx.get(trained.json["endpoint"] + "/info").json()["model"]["version"] == "1"
    first = workspace.run("deployment", "history", "--json").json["history"][0]
    assert first["by"] == f"training run {trained.json['run_id']}"
    assert first["reason"] == trained.json["reason"]
    again = workspace.run("--pipeline", "training", *settings)
    assert again.code == 0, again.stderr
    assert (again.json["model"]["version"], again.json["model"]["stage"]) == ("1", "production")
    records = workspace.python(RECORDS)
    assert records["services"] == [["1", True]]
    assert {"1", version} <= set(records["registered"])
    assert len(records["registered"]) == len(set(records["registered"]))


def test_ctrl_c_in_the_middle_of_training_loses_nothing(
    trained: Outcome, workspace: Workspace, settings: tuple[str, ...]
) -> None:
    command = [sys.executable, "run.py", "--pipeline", "training", *settings, "--set", "training.epochs=500"]
    with subprocess.Popen(
        command,
        cwd=workspace.code,
        env=workspace.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if "epoch 1" in line:
                break
        training.send_signal(signal.SIGINT)
        outcome, said = training.communicate(timeout=60)
    assert training.returncode == 130, f"{outcome}\n{said}"
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert httpx.get(trained.json["endpoint"] + "/readyz").status_code == 200
    records = workspace.python(RECORDS)
    assert (records["production"], records["services"]) == ("1", [["1", True]])
