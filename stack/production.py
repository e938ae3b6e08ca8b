"""Which version of a model stands for production: ZenML's stage and MLflow's alias, moved together."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from zenml.client import Client
from zenml.enums import ModelStages
from zenml.models import ModelVersionResponse, StepRunUpdate

from imago.errors import ConfigError, DeploymentFailed, ImagoError, as_note
from imago.evaluation.card import evaluated_card
from imago.evaluation.page import with_verdict
from imago.evaluation.report import EvaluationReport
from imago.serving.deployment import model_of
from imago.serving.package import ModelPackage
from stack.tracking import require_server, short_patience

logger = logging.getLogger("imago.production")

ALIAS = "champion"


@dataclass(frozen=True)
class Version:
    """A version of a model in ZenML's model control plane."""

    response: ModelVersionResponse

    @property
    def name(self) -> str:
        return self.response.model.name

    @property
    def number(self) -> str:
        return str(self.response.number)

    @property
    def package_id(self) -> UUID:
        """The artifact version of its package; two runs of the same cached training share it."""
        return self._artifact("model").id

    def package(self) -> ModelPackage:
        return self._artifact("model").load()

    def report(self) -> EvaluationReport:
        return self._artifact("evaluation").load()

    def reports(self) -> dict[str, str]:
        """What is there to read of it, by the names of the files."""
        report = self.report()
        decision = self.response.get_artifact("decision")
        return {
            "data.html": self._artifact("validation").load().page,
            "evaluation.html": with_verdict(report.html, decision.load()) if decision else report.html,
            "MODEL_CARD.md": evaluated_card(self.package().card, report),
        }

    def learned(self) -> frozenset[str]:
        """The SHA-256s of the pictures that it was trained or validated on."""
        dataset = self._artifact("dataset").load().without(self._artifact("validation").load().quarantined)
        rows = zip(dataset.digests, dataset.splits, strict=True)
        return frozenset(digest for digest, split in rows if split != "test")

    def _artifact(self, name: str):
        artifact = self.response.get_artifact(name)
        if artifact is None:
            raise ImagoError(f"Version {self.number} of model '{self.name}' has no artifact '{name}': train it again.")
        return artifact


def production_version(name: str) -> Version | None:
    """Return the version of the model in production, or None where there is none."""
    try:
        return Version(Client().get_model_version(name, ModelStages.PRODUCTION))
    except KeyError:
        return None


def production_versions() -> list[Version]:
    """Return the version in production of every model that has one."""
    models = Client().list_models(size=500).items
    return [version for model in models if (version := production_version(model.name)) is not None]


def version_of(name: str, number: str) -> Version:
    """Return a version by its number. Raises ConfigError where there is none."""
    try:
        return Version(Client().get_model_version(name, number))
    except KeyError as error:
        raise ConfigError(f"Model '{name}' has no version {number}: ZenML's dashboard lists them.") from error


def promote(name: str, number: str, package: ModelPackage, *, reason: str, decision: UUID | None = None) -> None:
    """Move MLflow's `champion` alias and ZenML's production stage to a version, both or neither.

    Cached decisions of the gate expire, but for the step run `decision` that makes this one: they compared with what
    is no longer in production.
    """
    version = version_of(name, number)
    with _alias_moved(name, number, lambda: package, reason):
        version.response.set_stage(ModelStages.PRODUCTION, force=True)
    expire_decisions(name, but=decision)


def require_production(name: str, compared: Version | None) -> None:
    """Raise ImagoError where another version stands for production than the one that was compared with."""
    now = production_version(name)
    if (now and now.number) != (compared and compared.number):
        first, then = (f"version {version.number}" if version else "none" for version in (compared, now))
        raise ImagoError(
            f"Of '{name}', {first} was compared with, and meanwhile {then} came to stand for production: nothing was "
            "promoted. Run it again to compare with that."
        )


def require_unreplaced(tag: str) -> Version | None:
    """Return what stands for production. Raises DeploymentFailed where that is not the version in this Bento."""
    name, number = model_of(tag).values()
    production = production_version(name)
    if production is not None and production.number != number:
        raise DeploymentFailed(
            f"{tag} was not deployed: version {production.number} has taken its place in production meanwhile."
        )
    return production


def keep_alias(name: str, production: Version | None) -> None:
    """Let MLflow's alias stand where ZenML's stage does, which a promotion that was killed may have left elsewhere.

    Where nothing is in production there is none. Where MLflow does not take it, that is said, and fails nothing.
    """
    try:
        if production is None:
            _without_alias(name)
        else:
            with _alias_moved(name, production.number, production.package, "in production already"):
                pass
    except (ImagoError, MlflowException) as error:
        logger.warning("MLflow's alias '%s' may not stand at what is in production: %s", ALIAS, error)


def give_back(name: str, number: str, champion: str | None) -> None:
    """Let the champion stand for production again where the version that took its place cannot be served."""
    production = production_version(name)
    if champion not in {None, number} and production is not None and production.number == number:
        before = version_of(name, str(champion))
        promote(name, before.number, before.package(), reason=f"version {number} could not be served, so again")


def expire_decisions(name: str, *, but: UUID | None = None) -> None:
    """Let no cached decision on a model be used again, but for one."""
    client = Client()
    for step in client.list_run_steps(name="promote_model", cache_expired=False, size=500).items:
        model = client.get_pipeline_run(step.pipeline_run_id).config.model
        if step.id != but and model is not None and model.name == name:
            client.zen_store.update_run_step(step.id, StepRunUpdate(cache_expires_at=datetime.now(UTC)))


@contextmanager
def _alias_moved(name: str, number: str, package: Callable[[], ModelPackage], reason: str) -> Iterator[None]:
    """Move MLflow's alias before what is done with it moved, and back where anything stops that.

    Raises ImagoError where MLflow does not take it.
    """
    registry = Client().active_stack.model_registry
    if registry is None:
        yield
        return
    require_server(f"version {number} of '{name}' was not promoted")
    client = registry.mlflow_client
    before = wanted = None
    try:
        try:
            with short_patience():
                registered = _registered(client, name, number) or _register(registry, name, number, package(), reason)
                before, wanted = _aliased(client, name), registered
                if wanted != before:
                    client.set_registered_model_alias(name, ALIAS, wanted)
        except MlflowException as error:
            raise ImagoError(
                f"MLflow did not take version {number} of '{name}'; nothing was promoted: {error}"
            ) from error
        yield
    except BaseException as error:
        moved = False
        with as_note(error, "ZenML does not say what stands for production now"):
            production = production_version(name)
            moved = production is not None and production.number == number
        if wanted != before and not moved:
            with as_note(
                error, f"MLflow's alias '{ALIAS}' of '{name}' may stand at another version than ZenML's stage"
            ):
                _put_back(client, name, before)
        raise


def _without_alias(name: str) -> None:
    registry = Client().active_stack.model_registry
    if registry is None:
        return
    require_server(f"nothing was changed of '{name}'")
    client = registry.mlflow_client
    with short_patience():
        if client.search_registered_models(f"name = '{name}'", max_results=1):
            _put_back(client, name, None)


def _put_back(client: MlflowClient, name: str, before: str | None) -> None:
    with short_patience():
        if before is not None:
            client.set_registered_model_alias(name, ALIAS, before)
        elif _aliased(client, name) is not None:
            client.delete_registered_model_alias(name, ALIAS)


def _aliased(client: MlflowClient, name: str) -> str | None:
    """Return the version of a registered model that the alias stands at."""
    version = client.get_registered_model(name).aliases.get(ALIAS)
    return None if version is None else str(version)


def _registered(client: MlflowClient, name: str, number: str) -> str | None:
    """Return MLflow's version of ZenML's, where it was registered before."""
    found = client.search_model_versions(f"name = '{name}' and tags.zenml_version = '{number}'", max_results=1)
    return str(found[0].version) if found else None


def _register(registry: Any, name: str, number: str, package: ModelPackage, reason: str) -> str:
    try:
        registered = registry.register_model_version(name=name, model_source_uri=str(package.path), description=reason)
    except RuntimeError as error:  # which ZenML makes of MLflow's own
        raise MlflowException(str(error)) from error
    registry.mlflow_client.set_model_version_tag(name, registered.version, "zenml_version", number)
    return str(registered.version)
