"""A tracking server that is away, from the start or from the middle: the run goes on, and its figures arrive later."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import psutil
import pytest

from tests.waiting import until
from tests.workspace import TINY, Workspace, free_port

pytestmark = pytest.mark.slow

TRAINING = (
    *("--pipeline", "training", "--config", "demo", "--stack", "team", *TINY),
    *("--set", "data.image_size=32", "--set", "data.synthetic.species=2", "--set", "data.synthetic.per_class_train=8"),
    *("--set", "evaluation.robustness=false", "--set", "evaluation.bootstrap_samples=0"),
    *("--set", "deploy.enabled=false"),
)
REFUSED = ("--set", "gate.max_calibration_error=0")
SPACE = "sweep.space={training.learning_rate: {low: 0.001, high: 0.01}}"
SWEEP = ("--set", "sweep.trials=2", "--set", SPACE, "--set", "training.epochs=1")

TEAM = """
import json
from zenml.client import Client
from zenml.enums import StackComponentType
from stack import register
register.ensure("local")
client = Client()
config = {"tracking_uri": "%s", "tracking_username": "someone", "tracking_password": "a-secret"}
tracker = client.create_stack_component("team", "mlflow", StackComponentType.EXPERIMENT_TRACKER, config)
parts = {kind: found[0].id for kind, found in client.active_stack_model.components.items()}
client.create_stack("team", parts | {StackComponentType.EXPERIMENT_TRACKER: tracker.id})
print(json.dumps("registered"))
"""


class Server:
    """MLflow's own server, which can be started again with all that it had."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.folder / "server"
        self.folder.mkdir()
        self.environment = workspace.environment
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: psutil.Popen | None = None

    def start(self) -> mlflow.MlflowClient:
        """Start it, wait until it answers, and return a client of it."""
        places = ("--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "artifacts")
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        command = [sys.executable, "-m", "mlflow", "server", *where, *places]
        with (self.folder / "log").open("a") as log:
            self.process = psutil.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        until(self.answers, 120, (self.folder / "log").read_text)
        return mlflow.MlflowClient(self.address)

    def answers(self) -> bool:
        """Tell whether it is up."""
        try:
            return httpx.get(f"{self.address}/health").is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """End it, and all that it started."""
        if self.process is None:
            return
        tree = [*self.process.children(recursive=True), self.process]
        for process in tree:
            process.kill()
        psutil.wait_procs(tree, timeout=10)
        self.process = None


@pytest.fixture(scope="module")
def registered(workspace: Workspace) -> Server:
    """A server, not started, behind the stack `team`."""
    server = Server(workspace)
    assert workspace.python(TEAM % server.address) == "registered"
    return server


@pytest.fixture
def server(registered: Server) -> Iterator[Server]:
    yield registered
    registered.stop()


def runs(client: mlflow.MlflowClient, pipeline: str) -> list[mlflow.entities.Run]:
    experiment = client.get_experiment_by_name(pipeline)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def steps(client: mlflow.MlflowClient, run: mlflow.entities.Run, figure: str) -> list[int]:
    return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, figure))


def line_about(server: Server, home: Path) -> str:
    return (
        f"  MLflow at {server.address} cannot be reached: the run goes on without it, its figures are kept in "
        f"{home / 'mlflow-waiting.db'}, and the next run uploads them once MLflow answers"
    )


def test_runs_without_their_server_end_well_and_are_uploaded_by_the_next(workspace: Workspace, server: Server) -> None:
    begun = time.time() * 1000
    command = (*TRAINING, *REFUSED, "--set", "training.epochs=2")
    trained = workspace.run(*command)
    assert trained.code == 0, trained.stderr
    line = line_about(server, workspace.folder / "home")
    assert trained.stderr.splitlines().count(line) == 1
    swept = workspace.run("--pipeline", "sweep", *TRAINING[2:], *SWEEP)
    assert swept.code == 0, swept.stderr
    ended = time.time() * 1000
    assert "a-secret" not in trained.stderr + trained.stdout + swept.stderr + swept.stdout

    client = server.start()
    again = workspace.run(*command)
    assert f"MLflow at {server.address} answers again: what waited of 4 runs is there now" in again.stderr
    (run,) = runs(client, "training")
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "2"
    assert "test_accuracy" in run.data.metrics
    assert steps(client, run, "val_loss") == [1, 2]
    stamps = [metric.timestamp for metric in client.get_metric_history(run.info.run_id, "val_loss")]
    assert begun < run.info.start_time < min(stamps) <= max(stamps) < run.info.end_time < ended
    parents = {one.info.run_name: one.data.tags.get("mlflow.parentRunId") for one in runs(client, "sweep")}
    (sweep,) = (one for one in runs(client, "sweep") if one.info.run_name not in {"trial 0", "trial 1"})
    assert parents == {sweep.info.run_name: None, "trial 0": sweep.info.run_id, "trial 1": sweep.info.run_id}
    for one in runs(client, "sweep"):
        if one.info.run_id != sweep.info.run_id:
            assert one.info.status == "FINISHED"
            assert {"val_accuracy", "best_val_accuracy"} <= one.data.metrics.keys()

    waiting = mlflow.MlflowClient(f"sqlite:///{workspace.folder}/home/mlflow-waiting.db")
    assert runs(waiting, "training") == runs(waiting, "sweep") == []


def test_a_run_whose_server_dies_goes_on_and_arrives_whole(workspace: Workspace, server: Server) -> None:
    client = server.start()
    before = {run.info.run_id for run in runs(client, "training")}
    command = (*TRAINING, *REFUSED, "--set", "training.epochs=40", "--set", "seed=3")
    with subprocess.Popen(
        [sys.executable, "run.py", *command],
        cwd=workspace.code,
        env=workspace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = []
        for text in process.stderr:
            said.append(text.rstrip("\n"))
            if text.startswith("  epoch 3:"):
                server.stop()
    assert process.returncode == 0, said
    assert said.count(line_about(server, workspace.folder / "home")) == 1

    client = server.start()
    (run,) = (run for run in runs(client, "training") if run.info.run_id not in before)
    there = steps(client, run, "val_loss")
    assert run.info.status == "RUNNING"
    assert 2 <= len(there) < 40
    workspace.run(*command)
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert steps(client, run, "val_loss") == steps(client, run, "train_loss") == list(range(1, 41))
    assert "test_accuracy" in run.data.metrics
    assert len(runs(client, "training")) == len(before) + 1


def test_without_the_registry_nothing_is_promoted_and_it_is_said_what_to_do(
    workspace: Workspace, server: Server
) -> None:
    lenient = ("--set", "gate.min_accuracy=0", "--set", "gate.max_calibration_error=1", "--set", "seed=4")
    outcome = workspace.run(*TRAINING, *lenient, "--set", "training.epochs=1")
    assert outcome.code == 1
    (error,) = (line for line in outcome.stderr.splitlines() if line.startswith("error: "))
    assert f"MLflow at {server.address} cannot be reached, so version" in error
    assert "was not promoted: run the same command again once it answers" in error
    asked = (
        "import json; from stack.production import production_versions; print(json.dumps(len(production_versions())))"
    )
    assert workspace.python(asked) == 0
