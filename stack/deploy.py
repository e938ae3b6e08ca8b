"""Puts a Bento behind the endpoint through the active stack's model deployer, and takes the stages along."""

from zenml.client import Client

from imago.config import DeployConfig
from imago.errors import ConfigError
from imago.serving.deployment import Status
from imago.serving.rollout import Deployment
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
    """Serve a Bento unless it is serving already, as configured."""
    return deploy(tag, config)


def rollback(name: str) -> Status:
    """Serve the version before, and let it stand for production again."""
    from stack.production import promote, version_of

    status = Deployment(name).rollback()
    if status.model is not None:
        version = version_of(name, status.model["version"])
        promote(name, version.number, version.package(), reason="rolled back to")
    return status
