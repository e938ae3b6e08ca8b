"""Run in a process of its own, with a ZenML of its own: use the local stack, and print what came of it as JSON."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

from imago import telemetry

telemetry.switch_off()
os.environ.setdefault("BENTOML_HOME", f"{os.environ['IMAGO_HOME']}/bentoml")

import mlflow  # noqa: E402
from zenml import pipeline, step  # noqa: E402
from zenml.client import Client  # noqa: E402
from zenml.enums import StackComponentType  # noqa: E402

from imago.config import Config, DeployConfig  # noqa: E402
from imago.errors import DeploymentFailed  # noqa: E402
from imago.serving.bento import build_bento  # noqa: E402
from stack import deploy, register  # noqa: E402
from tests.loopback import Handler, serving  # noqa: E402
from tests.packages import make_package  # noqa: E402


@step(enable_cache=False)
def make() -> Annotated[int, "number"]:
    return 3


@step(enable_cache=False, experiment_tracker="imago-mlflow")
def track(number: int) -> None:
    mlflow.log_metric("number", number)


@pipeline(name="tiny", enable_cache=False)
def tiny() -> None:
    track(make())


def run_tracked() -> dict[str, object]:
    run = tiny()
    client = mlflow.MlflowClient(f"sqlite:///{os.environ['IMAGO_HOME']}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    (tracked,) = client.search_runs([experiment.experiment_id])
    return {
        "status": str(run.status),
        "metrics": tracked.data.metrics,
        "artifact_location": experiment.artifact_location,
        "litter": [path.name for path in Path().glob("ml*")],
    }


def roll_out(port: int, folder: Path) -> dict[str, object]:
    package = make_package(folder / "package")
    config = DeployConfig(port=port, timeout_seconds=60)
    for version in ("1", "2"):
        status = deploy.deploy(build_bento(package, name="moths", version=version), config)
    deployer = Client().active_stack.model_deployer
    facts: dict[str, object] = {"status": status.to_json(), "services": services(deployer)}
    broken = make_package(folder / "broken")
    golden = folder / "broken" / "golden" / "golden.json"
    samples = json.loads(golden.read_text())
    golden.write_text(json.dumps([{**sample, "label": "no such class"} for sample in samples]))
    try:
        deploy.deploy(build_bento(broken, name="moths", version="3"), config)
    except DeploymentFailed as error:
        facts["failure"] = str(error)
    return {**facts, "services_after_failure": services(deployer)}


def services(deployer) -> list[dict[str, object]]:
    return [
        {"tag": service.config.bento_tag, "running": service.is_running, "url": service.prediction_url}
        for service in deployer.find_model_server(model_name="moths")
    ]


def alert() -> dict[str, object]:
    received: list[dict[str, object]] = []

    class Hook(Handler):
        def do_POST(self) -> None:
            received.append(json.loads(self.body()))
            self.reply(204)

    with serving(Hook) as address:
        os.environ["IMAGO_ALERT_WEBHOOK"] = f"{address}/secret"
        register.ensure("local")
        alerter = Client().active_stack.alerter
        posted = alerter.post("the world has moved")
    return {
        "posted": posted,
        "texts": [message["text"] for message in received],
        "configuration": Client().active_stack_model.components[StackComponentType.ALERTER][0].configuration,
        "posted_to_nobody": alerter.post("is anyone there?"),
    }


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    register.ensure()
    register.ensure("local")
    facts = {
        "active": Client().active_stack_model.name,
        "components": sorted(kind.value for kind in Client().active_stack_model.components),
        "deploys_in_step": register.deploys_in_step(),
        "settings": register.settings(Config()),
        "run": run_tracked(),
        "rollout": roll_out(port, folder),
        "alert": alert(),
    }
    register.ensure("docker")
    docker = register.settings(Config.model_validate({"data": {"source": str(folder)}}))
    facts["docker"] = {
        "deploys_in_step": register.deploys_in_step(),
        "image": docker["docker"].parent_image,
        "skip_build": docker["docker"].skip_build,
        "run_args": docker["orchestrator"]["run_args"],
    }
    Path(folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
