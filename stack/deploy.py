"""Puts a Bento behind the endpoint through the active stack's model deployer, and takes the stages along."""

import logging
from collections.abc import Callable

from zenml.client import Client

from imago.config import DeployConfig
from imago.errors import ConfigError, DeploymentFailed, ImagoError, as_note, first_line
from imago.evaluation.card import accuracy_on_tests, evaluated_card
from imago.evaluation.gate import GateDecision
from imago.serving import bento, deployment, health, shelf
from imago.serving import shadow as shadows
from imago.serving.deployment import Status
from imago.serving.rollout import Deployment
from stack.bentoml_deployer import ImagoBentoMLDeployer, ImagoServiceConfig
from stack.production import give_back, production_version, promote, require_unreplaced, version_of

logger = logging.getLogger("imago.deploy")


def deploy(tag: str, config: DeployConfig, *, champion: str | None = None, by: str = "", reason: str = "") -> Status:
    """Serve a Bento by its exact tag. `by` and `reason` are for its history: the pipeline run, and the gate's words.

    Raises DeploymentFailed, with the version before still serving, and standing for production again where its
    number is given as `champion`.
    """
    deployer = Client().active_stack.model_deployer
    if not isinstance(deployer, ImagoBentoMLDeployer):
        raise ConfigError(
            f"The active stack '{Client().active_stack_model.name}' has no model deployer of flavor 'imago_bentoml': "
            "run `python run.py stack use local`, or set deploy.enabled=false."
        )
    name, number = deployment.model_of(tag).values()
    production = require_unreplaced(tag)
    try:
        if production is not None and not bento.is_built(tag):  # by another machine, or its store was emptied
            package, report = production.package(), production.report()
            card = evaluated_card(package.card, report)
            tag = bento.build_bento(package, name=name, version=number, card=card, tested=accuracy_on_tests(report))
        if config.reports and production is not None:
            shelf.fill(name, number, production.reports())
        deployer.deploy_model(ImagoServiceConfig.of(tag, config, by=by, reason=reason))
    except BaseException as error:
        failure = DeploymentFailed(f"{tag} was not deployed: {error}") if isinstance(error, OSError) else error
        with as_note(failure, f"version {number} may still stand for production, for its champion did not again"):
            current = deployment.read(name).current
            if current is None or current.process is None or current.model["version"] != number:
                give_back(name, number, champion)
        if failure is not error:
            raise failure from error
        raise
    return Deployment(name).status()


def ensure_deployed(
    tag: str, config: DeployConfig, *, champion: str | None = None, by: str = "", reason: str = ""
) -> Status:
    """Serve a Bento unless it is serving already, as configured. Raises DeploymentFailed, as `deploy` does."""
    name = deployment.model_of(tag)["name"]
    served = Deployment(name)
    if served.serves(tag, config) and not deployment.read(name).unpromoted:
        return served.status()
    return deploy(tag, config, champion=champion, by=by, reason=reason)


def rollback(name: str, say: Callable[[str], None], *, by: str, reason: str = "") -> Status:
    """Serve the version before, and let it stand for production again.

    It serves first, and goes on to whatever becomes of the rest: what it replaced is wanted by nobody. Where it does
    not stand for production yet after an earlier try, this is that try's end, and no second step back.
    """
    served, state = Deployment(name, by=by, on_progress=say), deployment.read(name)
    if state.previous is not None and not state.unpromoted:
        version_of(name, state.previous.model["version"]).package()  # what is gone could never stand for production
    if state.unpromoted:
        status = served.start(reason=reason)
    else:
        before = production_version(name)
        status = served.rollback(reason=reason, standing=before.number if before else None)
    return finish_rollback(name, by=by, reason=reason) if status.running else status


def finish_rollback(name: str, *, by: str, reason: str = "") -> Status:
    """Let what was rolled back to, and serves, stand for production, where it does not yet.

    Raises ImagoError where it cannot, or where another was promoted since the rollback began.
    """
    state = deployment.read(name)
    current = state.current
    if state.unpromoted is None or current is None:
        return Deployment(name).status()
    _require_unpromoted_since(current, state)
    try:
        version = version_of(name, current.model["version"])
        promote(name, version.number, version.package(), reason=reason or "rolled back to")
        return deploy(current.tag, current.config, by=by)  # it serves: ZenML gets to know
    except Exception as error:
        raise ImagoError(
            f"{current.tag} serves again on {current.endpoint}, but does not stand for production yet: "
            f"{first_line(error)} Once that is mended, `python run.py deployment rollback --name {name}` ends it: it "
            "moves the stage, and leaves what serves."
        ) from error


def _require_unpromoted_since(current: deployment.Version, state: deployment.State) -> None:
    """Give a rollback's end up where neither its own version nor what stood for production at its beginning does."""
    name, number = current.model.values()
    production = production_version(name)
    if production is None or production.number in {number, state.standing}:
        return
    Deployment(name).give_up_promotion()
    then = f" A further rollback serves {state.previous.tag}." if state.previous else ""
    raise ImagoError(
        f"{current.tag} serves on {current.endpoint}, and version {production.number}, promoted since that was rolled "
        f"back to, goes on to stand for production: run the training that made it again to serve it.{then}"
    )


def shadow(name: str, number: str, share: float, say: Callable[[str], None], *, by: str, reason: str = "") -> Status:
    """Let a version be asked a share of what the one that serves is asked. Where it has no Bento, one is built.

    Raises ConfigError where nothing can be shadowed, and DeploymentFailed; what serves goes on as before.
    """
    version = version_of(name, number)
    champion = shadows.check(deployment.read(name), f"{name}:{version.number}", share)
    if not bento.mirrors(champion.tag):
        raise ConfigError(
            f"{champion.tag} cannot ask a shadow, for it was built before there were any: run the training that made "
            "it again, its steps are cached and the Bento is built anew."
        )
    package, report = version.package(), version.report()
    card = evaluated_card(package.card, report)
    tag = bento.build_bento(package, name=name, version=version.number, card=card, tested=accuracy_on_tests(report))
    return Deployment(name, by=by, on_progress=say).start_shadow(tag, share, reason=reason)


def shadow_challenger(name: str, decision: GateDecision, config: DeployConfig, *, by: str) -> None:
    """Let what the gate did not promote be asked `deploy.shadow` of what is asked, where another version serves.

    Where it cannot be, that is said, and fails nothing.
    """
    number = decision.challenger_version
    if decision.promoted or number is None or not config.shadow:
        return
    try:
        current = deployment.read(name).current
        if current is not None and health.serves(current):
            shadow(name, number, config.shadow, logger.info, by=by, reason=decision.reason)
    except (ImagoError, OSError) as error:
        logger.warning("Version %s of %s is asked nothing in the shadow: %s", number, name, error)
