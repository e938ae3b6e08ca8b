"""ZenML's BentoML deployer, made to serve: a thin flavor over `imago.serving.rollout`.

It differs from the stock one in what it does, not in how it is asked: a new version is validated before it takes the
port over, a failed one leaves the old one serving and fails the step, and ZenML's own look-ups find one service a
model, whose status is that of the process.
"""

import os
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar
from uuid import UUID, uuid4

from pydantic import Field
from zenml.client import Client
from zenml.enums import ServiceState
from zenml.integrations.bentoml.flavors import BentoMLModelDeployerConfig, BentoMLModelDeployerFlavor
from zenml.integrations.bentoml.model_deployers import BentoMLModelDeployer
from zenml.integrations.bentoml.services.bentoml_local_deployment import (
    BentoMLDeploymentEndpoint,
    BentoMLDeploymentEndpointConfig,
    BentoMLLocalDeploymentConfig,
    BentoMLLocalDeploymentService,
)
from zenml.model_deployers.base_model_deployer import (
    DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
    get_model_version_id_if_exists,
)
from zenml.models.v2.misc.service import ServiceType
from zenml.services import (
    BaseService,
    HTTPEndpointHealthMonitor,
    HTTPEndpointHealthMonitorConfig,
    ServiceConfig,
    ServiceEndpointProtocol,
)

from imago.config import DeployConfig
from imago.errors import ImagoError
from imago.serving import deployment, processes
from imago.serving.rollout import Deployment
from imago.serving.trial import worker_count

FLAVOR = "imago_bentoml"


class ImagoServiceConfig(BentoMLLocalDeploymentConfig):
    """The stock service's configuration, with ours in it."""

    deploy: DeployConfig
    by: str = Field(default="ZenML", exclude=True)  # whose doing it is, now: ZenML's record of it does not say
    reason: str = Field(default="", exclude=True)
    rollout: str = Field(default_factory=lambda: uuid4().hex)  # ZenML takes no two services of equal configuration

    @classmethod
    def of(cls, tag: str, config: DeployConfig, *, by: str = "", reason: str = "") -> "ImagoServiceConfig":
        """Return the configuration of a service for a Bento by its exact tag."""
        name, version = deployment.model_of(tag).values()
        return cls(
            model_name=name,
            model_version=version,
            model_uri=tag,
            bento_tag=tag,
            host=config.host,
            port=config.port,
            workers=worker_count(config),
            production=True,
            working_dir=".",
            deploy=config,
            by=by,
            reason=reason,
        )


class ImagoService(BentoMLLocalDeploymentService):
    """What ZenML knows of a deployment: its life and its state are the rollout's."""

    config: ImagoServiceConfig

    def __init__(self, config: ImagoServiceConfig | dict[str, Any], **attrs: Any) -> None:
        if isinstance(config, ImagoServiceConfig) and "endpoint" not in attrs:
            attrs["endpoint"] = _endpoint(config.deploy)
        super().__init__(config=config, **attrs)

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.config.model_name, by=self.config.by)

    def provision(self) -> None:
        from stack.production import require_unreplaced  # which imports MLflow

        tag, config = self.config.bento_tag, self.config.deploy
        require = partial(require_unreplaced, tag)
        self.deployment.deploy(tag, config, reason=self.config.reason, require=require)

    def deprovision(self, force: bool = False) -> None:  # noqa: ARG002
        if self._is_current():
            self.deployment.stop()

    def check_status(self) -> tuple[ServiceState, str]:
        if not self._is_current():
            return ServiceState.INACTIVE, f"another version of {self.config.model_name} is deployed"
        status = self.deployment.status()
        if not status.running:
            return ServiceState.INACTIVE, f"the server is not running: {status.reason}"
        return ServiceState.ACTIVE, ""

    def get_logs(self, follow: bool = False, tail: int | None = None) -> Generator[str, bool, None]:  # noqa: ARG002
        current = deployment.read(self.config.model_name).current
        if current is not None and current.process is not None:
            yield from processes.log_tail(current.process, tail or 1000, access=True)

    def run(self) -> None:
        raise ImagoError("Imago's deployer starts its server itself: use `run.py deployment start`.")

    def predict(self, api_endpoint: str, data: bytes, sync: bool = True) -> Any:  # noqa: ARG002
        """Send a picture's bytes to an endpoint such as `predict` and return the answer."""
        import httpx

        address = f"{deployment.endpoint(self.config.deploy)}/{api_endpoint}"
        return httpx.post(address, files={"image": data}, timeout=60, trust_env=False).json()

    def _is_current(self) -> bool:
        current = deployment.read(self.config.model_name).current
        return current is not None and current.tag == self.config.bento_tag


def _endpoint(config: DeployConfig) -> BentoMLDeploymentEndpoint:
    endpoint = BentoMLDeploymentEndpoint(
        config=BentoMLDeploymentEndpointConfig(
            protocol=ServiceEndpointProtocol.HTTP,
            port=config.port,
            ip_address=config.host,
            allocate_port=False,
            prediction_url_path="predict",
        ),
        monitor=HTTPEndpointHealthMonitor(config=HTTPEndpointHealthMonitorConfig(healthcheck_uri_path="readyz")),
    )
    endpoint.status.protocol = ServiceEndpointProtocol.HTTP
    endpoint.status.hostname = config.host
    endpoint.status.port = config.port
    return endpoint


class ImagoBentoMLDeployer(BentoMLModelDeployer):
    """Serves Bentos on this machine, one deployment a model."""

    NAME: ClassVar[str] = "Imago BentoML"

    def deploy_model(
        self,
        config: ServiceConfig,
        service_type: ServiceType = ImagoService.SERVICE_TYPE,
        replace: bool = False,  # noqa: ARG002
        continuous_deployment_mode: bool = True,  # noqa: ARG002
        timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
    ) -> BaseService:
        """Roll a version out, then make it ZenML's one service of the model.

        Nothing is looked up by equality: whether this version is serving already, the rollout knows best. Raises
        DeploymentFailed, with the service before still in place.
        """
        client = Client()
        version = get_model_version_id_if_exists(config.model_name, config.model_version)
        service = self.perform_deploy_model(id=uuid4(), config=config, timeout=timeout)  # others have their turn before
        record = client.create_service(config=config, service_type=service_type, model_version_id=version)
        service.uuid = record.id
        with suppress(KeyError):  # one that was rolled out meanwhile has taken the record away
            client.update_service(
                id=record.id,
                name=service.config.service_name,
                service_source=service.model_dump().get("type"),
                admin_state=service.admin_state,
                status=service.status.model_dump(),
                endpoint=service.endpoint.model_dump() if service.endpoint else None,
                prediction_url=service.get_prediction_url(),
                health_check_url=service.get_healthcheck_url(),
            )
        for other in client.list_services(
            service_name=service.config.service_name, flavor=service_type.flavor, size=100
        ).items:
            if other.id != record.id and other.created <= record.created:
                with suppress(KeyError):
                    client.delete_service(other.id)
        return service

    def perform_deploy_model(
        self,
        id: UUID,  # noqa: A002
        config: ServiceConfig,
        timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,  # noqa: ARG002
    ) -> BaseService:
        if not isinstance(config, ImagoServiceConfig):
            raise ImagoError("Imago's deployer takes an ImagoServiceConfig: make one with ImagoServiceConfig.of.")
        service = ImagoService(uuid=id, config=config)
        service.provision()
        service.admin_state = ServiceState.ACTIVE
        service.update_status()
        return service

    def perform_delete_model(
        self,
        service: BaseService,
        timeout: int = DEFAULT_DEPLOYMENT_START_STOP_TIMEOUT,
        force: bool = False,
    ) -> None:
        service.stop(timeout=timeout, force=force)

    @staticmethod
    def get_model_server_info(service_instance: BaseService) -> dict[str, str | None]:
        assert isinstance(service_instance, ImagoService)
        status = service_instance.deployment.status()
        return {
            "HEALTH_CHECK_URL": service_instance.get_healthcheck_url(),
            "PREDICTION_URL": service_instance.prediction_url,
            "BENTO_TAG": service_instance.config.bento_tag,
            "MODEL_NAME": service_instance.config.model_name,
            "MODEL_URI": service_instance.config.model_uri,
            "BENTO_URI": service_instance.config.bento_uri,
            "SERVICE_PATH": os.fspath(deployment.folder()),
            "DAEMON_PID": str(status.pids[0]) if status.pids else None,
            "PREDICTION_APIS_URLS": service_instance.prediction_url,
        }


class ImagoBentoMLDeployerFlavor(BentoMLModelDeployerFlavor):
    """The flavor `imago_bentoml`."""

    @property
    def name(self) -> str:
        return FLAVOR

    @property
    def config_class(self) -> type[BentoMLModelDeployerConfig]:
        return BentoMLModelDeployerConfig

    @property
    def implementation_class(self) -> type[ImagoBentoMLDeployer]:
        return ImagoBentoMLDeployer


ImagoBentoMLDeployer.FLAVOR = ImagoBentoMLDeployerFlavor
