"""Which version of a model stands for production: ZenML's stage and MLflow's alias, moved together."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from mlflow.exceptions import MlflowException
from zenml.client import Client
from zenml.enums import ModelStages
from zenml.models import ModelVersionResponse, StepRunUpdate

from imago.errors import ConfigError, ImagoError
from imago.evaluation.evaluate import EvaluationReport
from imago.serving.package import ModelPackage
from stack.tracking import require_server

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
        raise ConfigError(f"Model '{name}' has no version {number}: `run.py deployment history` lists them.") from error


def promote(name: str, number: str, package: ModelPackage, *, reason: str, decision: UUID | None = None) -> None:
    """Move ZenML's production stage and MLflow's `champion` alias to a version, both or neither.

    Cached decisions of the gate expire, but for the step run `decision` that makes this one: they compared with what
    is no longer in production.
    """
    if Client().active_stack.model_registry is not None:
        require_server(f"version {number} of '{name}' was not promoted")
    before = production_version(name)
    version = version_of(name, number)
    version.response.set_stage(ModelStages.PRODUCTION, force=True)
    try:
        registered = _registered(name, number) or _register(name, number, package, reason)
        if registered is not None:
            Client().active_stack.model_registry.mlflow_client.set_registered_model_alias(name, ALIAS, registered)
    except (MlflowException, RuntimeError) as error:
        if before is not None:
            before.response.set_stage(ModelStages.PRODUCTION, force=True)
        else:
            version.response.set_stage(ModelStages.STAGING, force=True)
        raise ImagoError(f"MLflow did not take version {number} of '{name}'; nothing was promoted: {error}") from error
    expire_decisions(name, but=decision)


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


def _registered(name: str, number: str) -> str | None:
    """Return MLflow's version of ZenML's, where it was registered before."""
    registry = Client().active_stack.model_registry
    if registry is None:
        return None
    wanted = f"name = '{name}' and tags.zenml_version = '{number}'"
    found = registry.mlflow_client.search_model_versions(wanted, max_results=1)
    return str(found[0].version) if found else None


def _register(name: str, number: str, package: ModelPackage, reason: str) -> str | None:
    registry = Client().active_stack.model_registry
    if registry is None:
        return None
    registered = registry.register_model_version(name=name, model_source_uri=str(package.path), description=reason)
    registry.mlflow_client.set_model_version_tag(name, registered.version, "zenml_version", number)
    return str(registered.version)
