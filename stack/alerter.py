"""ZenML's alerter for any chat program or service with an incoming webhook: a thin flavor over our own alerts."""

from typing import Any

from zenml.alerter import BaseAlerter, BaseAlerterFlavor
from zenml.alerter.base_alerter import BaseAlerterConfig, BaseAlerterStepParameters
from zenml.client import Client
from zenml.utils.secret_utils import SecretField

from imago.monitoring.alerts import Alert, AlertError, LogSink, Sink, WebhookSink, send

FLAVOR = "imago_webhook"


class WebhookAlerterConfig(BaseAlerterConfig):
    """Where alerts are posted. The address is a secret: whoever knows it can post."""

    url: str = SecretField()


class WebhookAlerter(BaseAlerter):
    """Posts alerts as JSON. It cannot ask: nobody could answer."""

    @property
    def config(self) -> WebhookAlerterConfig:
        config: Any = self._config
        return config

    def post(self, message: str, params: BaseAlerterStepParameters | None = None) -> bool:  # noqa: ARG002
        """Post a message; a failure is logged and given as false, since an alert never fails a run."""
        return not send(Alert(title="Imago", text=message), [self.sink])

    @property
    def sink(self) -> Sink:
        """Where it posts. Raises ConfigError where its address is none."""
        return WebhookSink(self.config.url)

    def ask(self, question: str, params: BaseAlerterStepParameters | None = None) -> bool:
        """Post the question and give false: what needs an approval does not get one from here."""
        self.post(question, params)
        return False


class WebhookAlerterFlavor(BaseAlerterFlavor):
    """The flavor `imago_webhook`."""

    @property
    def name(self) -> str:
        return FLAVOR

    @property
    def config_class(self) -> type[WebhookAlerterConfig]:
        return WebhookAlerterConfig

    @property
    def implementation_class(self) -> type[WebhookAlerter]:
        return WebhookAlerter


class StackSink:
    """Sends alerts to whatever alerter a stack has."""

    def __init__(self, alerter: BaseAlerter) -> None:
        self._alerter = alerter

    def send(self, alert: Alert) -> None:
        if not self._alerter.post(f"{alert.title}: {alert.text}"):
            raise AlertError(f"The stack's alerter {type(self._alerter).__name__} did not take the alert.")


def sinks() -> list[Sink]:
    """Return where alerts go: always the log, and the active stack's alerter where it has one."""
    alerter = Client().active_stack.alerter
    if alerter is None:
        return [LogSink()]
    return [LogSink(), alerter.sink if isinstance(alerter, WebhookAlerter) else StackSink(alerter)]
