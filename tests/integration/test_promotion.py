"""ZenML's stage and MLflow's alias move together or not at all, whatever comes between them."""

import re
from pathlib import Path

import pytest

from imago.config import SyntheticConfig
from imago.data.synthetic import synthetic_dataset
from tests.workspace import TINY, Workspace

pytestmark = pytest.mark.slow

TRAINING = (
    *("--pipeline", "training", "--config", "demo", "--json", *TINY),
    *("--set", "data.image_size=32", "--set", "data.synthetic.species=2", "--set", "data.synthetic.per_class_train=8"),
    *("--set", "evaluation.robustness=false", "--set", "evaluation.bootstrap_samples=0"),
    *("--set", "gate.min_accuracy=0", "--set", "gate.max_calibration_error=1"),
    *("--set", "deploy.enabled=false", "--set", "training.epochs=1"),
)

PLACES = """
import json, sys
from pathlib import Path
from mlflow.exceptions import MlflowException
from zenml.client import Client
from zenml.enums import ModelStages
from stack import register
from stack.production import expire_decisions, production_version, promote, require_production, version_of
from tests.packages import make_package
register.ensure("local")
client, mlflow = Client(), Client().active_stack.model_registry.mlflow_client

def aliased(name):
    alias = mlflow.get_registered_model(name).aliases.get("champion")
    return alias and mlflow.get_model_version(name, str(alias)).tags["zenml_version"]

def stages(name):
    return [version.stage for version in client.list_model_versions(model=name, sort_by="asc:number").items]

def versions(name, count):
    client.create_model(name)
    for _ in range(count):
        client.create_model_version(name)
    return make_package(Path(name))

def broken_by(error, done):
    whole = type(mlflow).set_registered_model_alias
    def broken(self, *arguments):
        type(mlflow).set_registered_model_alias = whole
        if done:
            whole(self, *arguments)
        raise error
    type(mlflow).set_registered_model_alias = broken

def tried(name, number, package):
    try:
        promote(name, number, package, reason="tried")
    except BaseException as error:
        return type(error).__name__
"""

BETWEEN = """
name = %(name)r
package = versions(name, 2)
if %(champion)r:
    promote(name, "1", package, reason="the first")
before = stages(name)
found = []
for error in (MlflowException("no"), KeyboardInterrupt(), OSError("no disk")):
    for done in (False, True):
        broken_by(error, done)
        kind = tried(name, "2", package)
        found.append([kind, stages(name) == before, aliased(name)])
version = type(client.get_model_version(name, "2"))
whole = version.set_stage
def interrupted(*_, **__):
    raise KeyboardInterrupt
version.set_stage = interrupted
found.append([tried(name, "2", package), stages(name) == before, aliased(name)])
def unreachable(*_, **__):
    raise RuntimeError("the store is gone")
version.set_stage, asked = unreachable, type(client).get_model_version
looked = version_of(name, "2")
import stack.production as production
production.version_of = lambda *_: looked
type(client).get_model_version = unreachable
found.append([tried(name, "2", package), True, aliased(name)])
type(client).get_model_version, production.version_of = asked, version_of
version.set_stage = whole
promote(name, "2", package, reason="at last")
print(json.dumps({"found": found, "end": [stages(name)[1], aliased(name)]}))
"""

STOOD = """
print(json.dumps([production_version("moths-demo").number, aliased("moths-demo")]))
"""
KILLED = (
    """
mlflow.delete_registered_model_alias("moths-demo", "champion")
expire_decisions("moths-demo")
"""
    + STOOD
)


@pytest.mark.parametrize("champion", [None, "1"])
def test_what_breaks_a_promotion_leaves_stage_and_alias_where_they_were(
    workspace: Workspace, champion: str | None
) -> None:
    found = workspace.python(PLACES + BETWEEN % {"name": f"after-{champion}".lower(), "champion": champion})
    kinds = ["ImagoError"] * 2 + ["KeyboardInterrupt"] * 2 + ["OSError"] * 2 + ["KeyboardInterrupt", "RuntimeError"]
    assert found["found"] == [[kind, True, champion] for kind in kinds]
    assert found["end"] == ["production", "2"]


def test_the_bento_and_the_reports_have_the_card_with_the_test_s_figures(workspace: Workspace) -> None:
    trained = workspace.run(*TRAINING)
    assert trained.code == 0, trained.stderr
    (readme,) = (workspace.folder / "home" / "bentoml" / "bentos" / "moths-demo").glob("1-*/README.md")
    described = readme.read_text(encoding="utf-8")
    assert "| weights it began with | `none` |" in described
    assert f"| accuracy | {trained.json['metrics']['test_accuracy']:.0%} |" in described
    assert Path(trained.json["reports"]["card"]).read_text(encoding="utf-8") == described


def test_a_rerun_puts_the_alias_where_the_stage_stands(workspace: Workspace) -> None:
    assert workspace.run(*TRAINING).code == 0
    assert workspace.python(PLACES + STOOD) == ["1", "1"]
    assert workspace.python(PLACES + KILLED) == ["1", None]
    again = workspace.run(*TRAINING)
    assert again.code == 0, again.stderr
    assert "in production already" in again.json["reason"]
    assert workspace.python(PLACES + STOOD) == ["1", "1"]


UNDONE = """
import importlib
from imago.config import DeployConfig
from imago.errors import DeploymentFailed
from imago.evaluation.gate import GateDecision
from stack import deploy
from tests.unit.evaluation.reports import report_of
from stack.bentoml_deployer import ImagoBentoMLDeployer
step = importlib.import_module("steps.build_bento")
package = versions("undone", 2)
promote("undone", "2", package, reason="the second")

def first(*_, **__):
    raise DeploymentFailed("it did not start")

def later(*_, **__):
    raise OSError("no database")

def told(call):
    try:
        call()
    except BaseException as error:
        return [type(error).__name__, str(error), error.__notes__]

decision = GateDecision(
    promoted=True, reason="", challenger_accuracy=1, champion_version="1", challenger_version="2", comparison=None
)
deploy.give_back = step.give_back = later
deploy.bento.is_built = lambda _: True
found = {}
step.bento.build_bento = first
found["bento"] = told(lambda: step.build_bento.entrypoint(package, report_of([True, False]), decision))
ImagoBentoMLDeployer.deploy_model = first
found["deploy"] = told(lambda: deploy.deploy("undone:2-0123", DeployConfig(), champion="1"))
print(json.dumps(found))
"""


def test_a_clean_up_that_fails_does_not_hide_what_failed_first(workspace: Workspace) -> None:
    stands = "version 2 may still stand for production, for its champion did not again: no database"
    assert workspace.python(PLACES + UNDONE) == {
        "bento": ["DeploymentFailed", "it did not start", [stands]],
        "deploy": ["DeploymentFailed", "it did not start", [stands]],
    }


ROLLED_BACK = """
from click.testing import CliRunner
from cli.deployment import deployment as commands
from imago.serving import deployment, rollout
from stack import bentoml_deployer, deploy
from stack.bentoml_deployer import ImagoServiceConfig
from stack.production import Version
from tests.unit.serving.conftest import House
package = versions("back", 3)
Version.package = lambda _: package
Path("house").mkdir()
house = House(Path("house"))
rollout.Deployment = deploy.Deployment = bentoml_deployer.Deployment = lambda name, **options: type(house.moths)(
    name, command=house.command, package=lambda _: house.package, **options
)
deploy.bento.is_built = lambda _: True
served = rollout.Deployment("back")
for number in ("1", "2"):
    promote("back", number, package, reason="better")
    served.deploy(f"back:{number}", house.config)

def back():
    try:
        deploy.rollback("back", lambda _: None, by="a person", reason="it names moths wrongly")
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def facts(said):
    return [said, served.status().model["version"], production_version("back").number, aliased("back")]

found = []
broken_by(MlflowException("no server."), False)
found.append(facts(back()))
found.append(facts(back()))
found.append(facts(back()))
broken_by(MlflowException("no server."), False)
back()
served.stop(reason="for the night")
found.append(facts(None))
broken_by(MlflowException("no server."), False)
failed = CliRunner().invoke(commands, ["start", "--json"]).exception
found.append(facts(f"{type(failed).__name__}"))
CliRunner().invoke(commands, ["start", "--json", "--reason", "it is day"], catch_exceptions=False)
found.append(facts(None))
reasons = [[event.action, event.reason] for event in served.history()]
broken_by(MlflowException("no server."), False)
back()
promote("back", "3", package, reason="better than both")
served.stop()
failed = CliRunner().invoke(commands, ["start", "--json"]).exception
found.append(facts(f"{failed}"))
CliRunner().invoke(commands, ["start", "--json"], catch_exceptions=False)
found.append(facts(deployment.read("back").unpromoted))
broken_by(MlflowException("no server."), False)
back()
promote("back", "1", package, reason="it was the best")
found.append(facts(deployment.read("back").unpromoted))
deploy.ensure_deployed("back:1", house.config)
found.append(facts(deployment.read("back").unpromoted))
promote("back", "3", package, reason="and is not served")
broken_by(MlflowException("no server."), False)
found.append([facts(back())[0] is None, facts(back())])
deployer = client.active_stack.model_deployer
at_once = type(deployer).perform_deploy_model

def waits(self, id, config, timeout):
    type(deployer).perform_deploy_model = at_once
    deployer.deploy_model(ImagoServiceConfig.of("back:2", house.config.model_copy(update={"top_k": 1})))
    return at_once(self, id, config, timeout)

type(deployer).perform_deploy_model = waits
deployer.deploy_model(ImagoServiceConfig.of("back:2", house.config))
listed = client.list_services(service_name=ImagoServiceConfig.of("back:2", house.config).service_name).items
found.append([service.config["deploy"]["top_k"] for service in listed])
served.stop()
print(json.dumps([found, reasons]))
"""


def test_a_rollback_that_cannot_promote_keeps_the_version_before_serving_and_is_ended_by_the_next(
    workspace: Workspace,
) -> None:
    found, reasons = workspace.python(PLACES + ROLLED_BACK)
    said = found[0].pop(0)
    assert re.fullmatch(
        r"ImagoError: back:1 serves again on http://127\.0\.0\.1:\d+, but does not stand for production yet: "
        r"MLflow did not take version 1 of 'back'; nothing was promoted: no server\. Once that is mended, "
        r"`python run\.py deployment rollback --name back` ends it: it moves the stage, and leaves what serves\.",
        said,
    )
    assert found[0] == ["1", "2", "2"]
    assert found[1] == [None, "1", "1", "1"]
    assert found[2] == [None, "2", "2", "2"]
    assert found[3] == [None, "1", "2", "2"]
    assert found[4] == ["ImagoError", "1", "2", "2"]
    assert found[5] == [None, "1", "1", "1"]
    assert re.fullmatch(
        r"back:2 serves on http://127\.0\.0\.1:\d+, and version 3, promoted since that was rolled back to, goes on to "
        r"stand for production: run the training that made it again to serve it\. A further rollback serves back:1\.",
        found[6].pop(0),
    )
    assert found.pop() == [5]  # who waited for another deployment is ZenML's one service
    assert found.pop() == [False, [None, "2", "2", "2"]]  # what stood for production all the while stops no rollback
    assert found[6:] == [["2", "3", "3"], [None, "2", "3", "3"], ["back:1", "1", "1", "1"], [None, "1", "1", "1"]]
    bad = ["rolled back", "it names moths wrongly"]
    kept = [["deployed", ""], ["deployed", ""], bad, bad, bad, ["stopped", "for the night"], ["started", ""]]
    assert reasons == kept


MOVED = """
promoted = versions("moved", 2)
promote("moved", "1", promoted, reason="the first")
first = production_version("moved")
require_production("moved", first)
promote("moved", "2", promoted, reason="meanwhile")
said = []
for compared in (first, None):
    try:
        require_production("moved", compared)
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""

KILLED_IN_THE_FIRST = """
from stack.production import keep_alias
package = versions("never", 1)
keep_alias("never", None)
promote("never", "1", package, reason="the first")
client.get_model_version("never", "1").set_stage("archived")  # killed before the stage moved, the alias stands alone
found = [production_version("never"), aliased("never")]
keep_alias("never", None)
print(json.dumps([*found, aliased("never")]))
"""

ASTRAY = """
elsewhere = mlflow.create_model_version("dealt", "elsewhere").version
mlflow.set_registered_model_alias("dealt", "champion", elsewhere)
print(json.dumps([]))
"""


def test_an_alias_that_stands_alone_is_taken_away(workspace: Workspace) -> None:
    assert workspace.python(PLACES + KILLED_IN_THE_FIRST) == [None, "1", None]


def test_what_was_not_compared_with_is_not_replaced(workspace: Workspace) -> None:
    first, second = workspace.python(PLACES + MOVED)
    assert first.startswith(
        "ImagoError: Of 'moved', version 1 was compared with, and meanwhile version 2 came to stand"
    )
    assert second.startswith("ImagoError: Of 'moved', none was compared with, and meanwhile version 2")


def test_a_run_that_promotes_nothing_puts_the_alias_right_and_compares_only_what_the_champion_never_saw(
    workspace: Workspace,
) -> None:
    folder = workspace.folder / "pictures"
    moths = synthetic_dataset(SyntheticConfig(species=2, per_class_train=30, per_class_val=2, per_class_test=2), 32, 0)
    for row, label in enumerate(moths.labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{row}.png").write_bytes(moths.image(row))
    training = (*TRAINING, "--data", str(folder), "--set", "model.name=dealt", "--set", "data.test_fraction=0.3")
    first = workspace.run(*training)
    assert first.code == 0, first.stderr
    workspace.python(PLACES + ASTRAY)
    dealt_anew = workspace.run(*training, "--set", "seed=1", "--set", "gate.surely_better=true")
    assert dealt_anew.code == 0, dealt_anew.stderr
    assert dealt_anew.json["promoted"] is False
    assert "left out, for the champion learned from them" in dealt_anew.json["reason"]
    assert workspace.python(PLACES + STOOD.replace("moths-demo", "dealt")) == ["1", "1"]


def test_a_challenger_that_is_not_promoted_becomes_the_shadow_of_what_serves_where_asked(workspace: Workspace) -> None:
    named = ("--set", "model.name=shaded", "--set", f"deploy.port={workspace.port}", "--set", "deploy.enabled=true")
    first = workspace.run(*TRAINING, *named)
    assert first.code == 0, first.stderr
    assert (first.json["promoted"], first.json["shadow"]) == (True, None)
    worse = ("--set", "gate.min_accuracy=1", "--set", "training.learning_rate=0.000001", "--set", "seed=1")
    second = workspace.run(*TRAINING, *named, *worse, "--set", "deploy.shadow=0.5")
    assert second.code == 0, second.stderr
    assert second.json["promoted"] is False
    assert second.json["shadow"] is not None, second.stderr
    challenger = second.json["shadow"]["model"]
    assert challenger == {"name": "shaded", "version": second.json["model"]["version"]}
    assert (second.json["shadow"]["running"], second.json["shadow"]["share"]) == (True, 0.5)
    ended = workspace.run("deployment", "shadow", "--stop", "--json").json
    assert (ended["running"], ended["model"]["version"], ended["shadow"]) == (True, "1", None)
    again = workspace.run(*TRAINING, *named, *worse, "--set", "deploy.shadow=0.5")  # wholly from the cache
    assert again.json["shadow"]["model"] == challenger, again.stderr
    by_hand = workspace.run("deployment", "shadow", challenger["version"], "--share", "0.25", "--json")
    assert by_hand.json["shadow"]["share"] == 0.25, by_hand.stderr
    assert by_hand.json["shadow"]["pids"] == again.json["shadow"]["pids"]
    stopped = workspace.run("deployment", "stop", "--json").json
    assert (stopped["running"], stopped["pids"], stopped["shadow"]) == (False, [], None)
    assert workspace.processes() == []
