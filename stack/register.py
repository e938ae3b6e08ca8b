"""Brings ZenML's stacks in line with their blueprints, and says which one a run stands on."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID
from zenml.enums import StackComponentType
from zenml.exceptions import EntityExistsError
from zenml.models import ComponentResponse, StackResponse

from imago import home
from imago.config import Config
from imago.errors import ConfigError, ImagoError, did_you_mean
from stack import blueprint
from stack.blueprint import Blueprint, Component

logger = logging.getLogger("imago.stack")

DEFAULT = "local"
FLAVORS = {
    "imago_bentoml": "stack.bentoml_deployer.ImagoBentoMLDeployerFlavor",
    "imago_webhook": "stack.alerter.WebhookAlerterFlavor",
}
IN_PROCESS = {"local"}  # orchestrators that run a step on this machine itself
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # else MLflow makes a folder `mlruns` wherever it is started
PASSED_ON = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Row:
    """A stack in the list of stacks."""

    name: str
    stack: str
    summary: str
    registered: bool
    active: bool


def ensure(name: str | None = None) -> None:
    """Register a stack where it is not yet, and make it the active one of this process.

    Without a name: the stack that `use` has chosen, else `local`. A name may also be that of any stack in ZenML.
    Raises ConfigError for a stack that there is not, or that lacks what it needs.
    """
    os.environ.setdefault(ARTIFACT_ROOT, str(home.home() / "mlruns"))
    chosen = name or chosen_name()
    found = blueprint.load(chosen) if chosen in blueprint.names() else blueprint.by_stack(chosen)
    stack = register(found) if found is not None else _foreign(chosen)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    Client()._active_stack = None  # the client would go on with the components that the stack had before


def use(name: str) -> str:
    """Register a stack and make it the active one from now on; return its name in ZenML."""
    ensure(name)
    stack = Client().get_stack(os.environ[ENV_ZENML_ACTIVE_STACK_ID])
    Client().activate_stack(stack.id)
    return stack.name


def register(plan: Blueprint) -> StackResponse:
    """Create or update whatever differs from the blueprint. Raises ConfigError."""
    if plan.missing:
        raise ConfigError(
            f"The stack '{plan.name}' needs {', '.join(plan.missing)} in the environment: "
            f"`python run.py stack check {plan.name}` says what for."
        )
    client = Client()
    try:
        wanted = {StackComponentType(part.type): _component(client, part).id for part in plan.components}
        try:
            stack = client.get_stack(plan.stack, allow_name_prefix_match=False)
        except KeyError:
            _keep_statistics_home()
            return client.create_stack(plan.stack, components=wanted)
        present = {kind: parts[0].id for kind, parts in stack.components.items() if parts}
        if present != wanted:
            for kind in present.keys() - wanted.keys():
                wanted[kind] = []
            stack = client.update_stack(stack.id, component_updates=wanted)
        return stack
    except (KeyError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"The stack '{plan.name}' cannot be registered: {' '.join(str(error).split())} "
            f"(`python run.py stack check {plan.name}` looks at each component)"
        ) from error


def _keep_statistics_home() -> None:
    """Let ZenML keep its usage statistics to itself in processes that are not ours, too, such as its dashboard's."""
    statistics = GlobalConfiguration()
    if statistics.analytics_opt_in and os.environ.get("ZENML_ANALYTICS_OPT_IN", "").lower() != "true":
        statistics.analytics_opt_in = False
        logger.info("ZenML sends no usage statistics from now on (`zenml analytics opt-in` lets it)")


def rows() -> list[Row]:
    """Return every stack of ours, and the one in use where it is not ours."""
    known = set(_registered())
    used = chosen_name()
    plans = [blueprint.load(name) for name in blueprint.names()]
    listed = [Row(plan.name, plan.stack, plan.summary, plan.stack in known, plan.name == used) for plan in plans]
    if used not in {row.name for row in listed}:
        listed.append(Row(used, used, "A stack of your own in ZenML.", registered=True, active=True))
    return listed


def deploys_in_step(stack: str | None = None) -> bool:
    """Say whether a step of this ZenML stack, or of the active one, may start a server that outlives it."""
    model = Client().get_stack(stack) if stack else Client().active_stack_model
    return _flavor(model, StackComponentType.ORCHESTRATOR) in IN_PROCESS


def settings(config: Config) -> dict[str, Any]:
    """Return the settings that a pipeline needs on the active stack: the image, what is mounted, what is passed on."""
    model = Client().active_stack_model
    plan = blueprint.by_stack(model.name)
    orchestrator = _flavor(model, StackComponentType.ORCHESTRATOR)
    if plan is None or plan.image is None or orchestrator in IN_PROCESS:
        return {}
    from zenml.config import DockerSettings

    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment["ZENML_ENABLE_RICH_TRACEBACK"] = "false"  # `stack.failure` reads the plain one
    docker = DockerSettings(parent_image=plan.image, skip_build=True, runtime_environment=environment)
    if orchestrator != "local_docker":
        return {"docker": docker}
    here = str(home.home())
    environment |= {
        "IMAGO_HOME": here,
        "IMAGO_REPORTS": str(home.reports()),
        "BENTOML_HOME": f"{here}/bentoml",
        ARTIFACT_ROOT: f"{here}/mlruns",
    }
    run_args = {"volumes": mounts(config), "environment": environment, **plan.run_args}
    return {"docker": docker, "orchestrator": {"run_args": run_args}}


def mounts(config: Config) -> dict[str, dict[str, str]]:
    """Return what a container must see of this machine, each at the path that it has here."""
    found = {str(place): {"bind": str(place), "mode": "rw"} for place in (home.home(), home.reports())}
    for text in (config.data.source, config.evaluation.outside, config.model.weights, os.environ.get("HF_HOME")):
        path = Path(text).expanduser().resolve() if text and "://" not in text else None
        if path is None or not path.exists():
            continue
        folder = str(path if path.is_dir() else path.parent)
        found.setdefault(folder, {"bind": folder, "mode": "rw" if text == os.environ.get("HF_HOME") else "ro"})
    return found


def chosen_name() -> str:
    active = Client().active_stack_model.name
    plan = blueprint.by_stack(active)
    return plan.name if plan else DEFAULT if active == "default" else active


def require_known(name: str) -> None:
    """Raise ConfigError, with the nearest name, where there is no stack of this name."""
    if blueprint.by_stack(name) is None:
        _foreign(name)


def _foreign(name: str) -> StackResponse:
    try:
        return Client().get_stack(name, allow_name_prefix_match=False)
    except KeyError as error:
        known = [*blueprint.names(), *_registered()]
        raise ConfigError(f"No stack '{name}': there are {', '.join(known)}.{did_you_mean(name, known)}") from error


def _component(client: Client, part: Component) -> ComponentResponse:
    kind = StackComponentType(part.type)
    _flavors(client, part, kind)
    config = {**part.config, **_secret(client, part)}
    try:
        present = client.get_stack_component(kind, part.name, allow_name_prefix_match=False)
    except KeyError:
        return client.create_stack_component(part.name, part.flavor, kind, config)
    if present.flavor_name != part.flavor:
        raise ImagoError(
            f"ZenML has a {part.type} '{part.name}' of flavor '{present.flavor_name}', not '{part.flavor}': "
            f"rename or delete it (`zenml {part.type.replace('_', '-')} delete {part.name}`)."
        )
    if {key: value for key, value in present.configuration.items() if key in config} != config:
        return client.update_stack_component(present.id, kind, configuration=config)
    return present


def _flavors(client: Client, part: Component, kind: StackComponentType) -> None:
    if part.flavor not in FLAVORS:
        return
    try:
        client.get_flavor_by_name_and_type(part.flavor, kind)
    except KeyError:
        client.create_flavor(FLAVORS[part.flavor], kind)


def _secret(client: Client, part: Component) -> dict[str, str]:
    """Keep a component's secrets in ZenML's secret store, and return the references to them."""
    if not part.secret:
        return {}
    try:
        client.create_secret(part.name, values=part.secret)
    except EntityExistsError:
        if client.get_secret(part.name, allow_partial_name_match=False).secret_values != part.secret:
            client.update_secret(part.name, add_or_update_values=part.secret)
    return {key: f"{{{{{part.name}.{key}}}}}" for key in part.secret}


def _flavor(stack: StackResponse, kind: StackComponentType) -> str | None:
    parts = stack.components.get(kind)
    return parts[0].flavor_name if parts else None


def _registered() -> list[str]:
    return [stack.name for stack in Client().list_stacks(size=500).items]
