"""Stacks in a real ZenML, and real Bentos behind the deployer: one process tells all, the tests read what it found."""

import json
import re
import subprocess
import sys

import httpx
import pytest

from tests.packages import picture_bytes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def facts(workspace):
    """What `stack_facts.py` found; its second version keeps serving until the workspace is closed."""
    command = [sys.executable, "-c", "from tests.integration import stack_facts; stack_facts.main()"]
    environment = {**workspace.environment, "ZENML_CUSTOM_SOURCE_ROOT": str(workspace.code)}
    done = subprocess.run(
        [*command, str(workspace.port), str(workspace.folder)],
        cwd=workspace.code,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((workspace.folder / "facts.json").read_text())


def test_the_local_stack_is_registered_and_active(facts):
    assert facts["active"] == "imago-local"
    assert facts["components"] == [
        "artifact_store",
        "experiment_tracker",
        "model_deployer",
        "model_registry",
        "orchestrator",
    ]
    assert facts["deploys_in_step"] is True
    assert facts["settings"] == {}


def test_a_pipeline_tracks_in_the_home_and_leaves_nothing_where_it_was_started(facts, workspace):
    run = facts["run"]
    assert run["status"] == "completed"
    assert run["metrics"] == {"number": 3.0}
    assert run["artifact_location"].startswith(workspace.environment["IMAGO_HOME"])
    assert run["litter"] == []


def test_the_deployer_serves_the_second_bento_as_zenmls_only_service(facts, workspace):
    status = facts["rollout"]["status"]
    assert status["running"]
    assert status["model"] == {"name": "moths", "version": "2"}
    assert status["previous"] == {"name": "moths", "version": "1"}
    url = f"http://127.0.0.1:{workspace.port}/predict"
    (service,) = facts["rollout"]["services"]
    assert service["tag"].startswith("moths:2-")
    assert (service["running"], service["url"]) == (True, url)


def test_a_bento_that_fails_its_golden_samples_leaves_the_service_as_it_was(facts, workspace):
    assert re.match(
        r"moths:3-\w{8} was not deployed, moths:2-\w{8} still serves: golden sample", facts["rollout"]["failure"]
    )
    assert facts["rollout"]["services_after_failure"] == facts["rollout"]["services"]
    answer = httpx.post(f"http://127.0.0.1:{workspace.port}/predict", files={"image": picture_bytes("red")}).json()
    assert answer["model"] == {"name": "moths", "version": "2"}
    assert answer["predictions"][0]["label"] == "red"


def test_the_alerter_posts_and_its_address_stays_in_the_secret_store(facts):
    assert facts["alert"] == {
        "posted": True,
        "texts": ["Imago: the world has moved"],
        "configuration": {"url": "{{imago-webhook.url}}"},
        "posted_to_nobody": False,
    }


def test_the_docker_stack_mounts_home_and_data_and_leaves_the_deployment_to_the_host(facts, workspace):
    docker = facts["docker"]
    assert docker["deploys_in_step"] is False
    assert (docker["image"], docker["skip_build"]) == ("imago:latest", True)
    home, reports = (workspace.environment[name] for name in ("IMAGO_HOME", "IMAGO_REPORTS"))
    data = str(workspace.folder)
    assert docker["run_args"]["volumes"] == {
        home: {"bind": home, "mode": "rw"},
        reports: {"bind": reports, "mode": "rw"},
        data: {"bind": data, "mode": "ro"},
    }
    assert docker["run_args"]["environment"]["IMAGO_HOME"] == home


@pytest.mark.usefixtures("facts")
def test_the_command_line_shows_stops_and_starts_what_the_deployer_serves(workspace):
    served = workspace.run("deployment", "status", "--json").json
    assert served["endpoint"] == f"http://127.0.0.1:{workspace.port}"
    stopped = workspace.run("deployment", "stop", "--json")
    assert (stopped.code, stopped.json["running"], stopped.json["pids"]) == (0, False, [])
    assert workspace.run("deployment", "start", "--json").json["model"] == {"name": "moths", "version": "2"}
    actions = [event["action"] for event in workspace.run("deployment", "history", "--json").json["history"]]
    assert actions == ["deployed", "deployed", "failed", "stopped", "started"]


def test_an_unknown_stack_is_refused_with_the_nearest_name(workspace):
    refused = workspace.run("stack", "use", "dokcer")
    assert refused.code == 2
    assert "Did you mean 'docker'" in refused.stderr


def test_stack_check_says_component_by_component_what_kubernetes_lacks(workspace):
    checked = workspace.run("stack", "check", "kubernetes", "--json")
    assert checked.code == 1
    problems = {part["component"]: part["problem"] for part in checked.json["components"] if not part["ok"]}
    assert problems["artifact_store"] == "IMAGO_BUCKET not set"
    assert problems["container_registry"] == "IMAGO_REGISTRY not set"
    assert problems["zenml_server"] == "pods cannot reach the ZenML database on this machine"
    assert all(part["remedy"] for part in checked.json["components"] if not part["ok"])
