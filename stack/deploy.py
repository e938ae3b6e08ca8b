"""Puts a Bento behind the endpoint through the active stack's model deployer, and takes the stages along."""

from collections.abc import Callable

from zenml.client import Client

from imago.config import DeployConfig
from imago.errors import ConfigError
from imago.serving import deployment
from imago.serving.deployment import Status, read
from imago.serving.rollout import Deployment, package_of
from stack.bentoml_deployer import ImagoBentoMLDeployer, ImagoServiceConfig


def deploy(tag: str, config: DeployConfig) -> Status:
    """Serve a Bento by its exact tag. Raises DeploymentFailed, with the version before still serving."""
    deployer = Client().active_stack.model_deployer
    if not isinstance(deployer, ImagoBentoMLDeployer):
        raise ConfigError(
            f"The active stack '{Client().active_stack_model.name}' has no model deployer of flavor 'imago_bentoml': "
            "run `python run.py stack use local`, or set deploy.enabled=false."
        )
    deployer.deploy_model(ImagoServiceConfig.of(tag, config))
    return Deployment(tag.partition(":")[0]).status()


def ensure_deployed(tag: str, config: DeployConfig) -> Status:
    """Serve a Bento unless it is serving already, as configured. Raises DeploymentFailed."""
    name = tag.partition(":")[0]
    current = deployment.read(name).current
    if current is not None and (current.tag, current.config) == (tag, config):
        status = Deployment(name).status()
        if status.running:
            return status
    return deploy(tag, config)


def rollback(name: str, say: Callable[[str], None]) -> Status:
    """Serve the version before, and let it stand for production again."""
    from stack.production import promote, version_of

    previous = read(name).previous
    if previous is None:
        return Deployment(name, on_progress=say).rollback()  # which says that there is nothing to go back to
    spec = package_of(previous.tag).spec  # a tag has no capitals, a model's name may have
    version = version_of(spec.name, previous.model["version"])
    package = version.package()
    status = Deployment(name, on_progress=say).rollback()
    promote(spec.name, version.number, package, reason="rolled back to")
    return status
