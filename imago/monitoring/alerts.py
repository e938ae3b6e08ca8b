"""Tells people what monitoring has found: in the log, and wherever else their stack sends alerts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from imago.errors import ConfigError, ImagoError
from imago.monitoring.drift import DriftReport
from imago.monitoring.policy import decide

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
ATTEMPTS = 2

logger = logging.getLogger(__name__)

Fact = str | int | float | bool | None


class AlertError(ImagoError):
    """An alert that did not reach whom it was meant for."""


@dataclass(frozen=True)
class Alert:
    """A title, a sentence, and facts for a machine."""

    title: str
    text: str
    facts: Mapping[str, Fact] = field(default_factory=dict)


class Sink(Protocol):
    """Where alerts go."""

    def send(self, alert: Alert) -> None:
        """Deliver an alert. Raises AlertError."""


class LogSink:
    """Writes alerts to the log as warnings."""

    def send(self, alert: Alert) -> None:
        logger.warning("%s: %s", alert.title, alert.text)


class WebhookSink:
    """Posts alerts as JSON: `{"text", "title", "facts"}`, the text being what chat programs show."""

    def __init__(self, url: str, *, timeout_seconds: float = TOTAL_SECONDS, attempts: int = ATTEMPTS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("The webhook that alerts are to be posted to is not an http(s) address.")
        self._url = url
        self._timeout = timeout_seconds
        self._attempts = attempts
        self.host = parts.hostname  # the rest of the address may hold a secret

    def send(self, alert: Alert) -> None:
        """Post, again where the host was not reached or erred (5xx); redirects are not followed."""
        import httpx

        body = {"text": f"{alert.title}: {alert.text}", "title": alert.title, "facts": dict(alert.facts)}
        timeout = httpx.Timeout(self._timeout / self._attempts, connect=min(CONNECT_SECONDS, self._timeout))
        problem = "no attempt was made"
        with httpx.Client(timeout=timeout, follow_redirects=False) as client:
            for _ in range(self._attempts):
                try:
                    with client.stream("POST", self._url, json=body) as answer:  # its body is of no use, and unbounded
                        status = answer.status_code
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    problem = type(error).__name__
                    continue
                if 200 <= status < 300:
                    return
                problem = f"it answered {status}"
                if status < 500:
                    break
        raise AlertError(f"The webhook at {self.host} did not take the alert: {problem}. Check IMAGO_ALERT_WEBHOOK.")


def alert(report: DriftReport, to: Sequence[Sink]) -> list[str]:
    """Tell people of a drifted window, once, and of nothing else; return what could not be delivered."""
    if report.verdict != "drifted":
        return []
    facts: dict[str, Fact] = {
        "verdict": report.verdict,
        "from": report.window.since,
        "to": report.window.until,
        "count": report.window.count,
        "drifted": ", ".join(test.name for test in report.tests if test.drifted),
        "accuracy": report.accuracy,
        "estimated_accuracy": report.estimated_accuracy,
    }
    return send(Alert("Drift", decide(report).sentence, facts), to)


def send(alert: Alert, to: Sequence[Sink]) -> list[str]:
    """Send to every sink; return the failures as sentences, which are logged too: an alert never fails a run."""
    failures = []
    for sink in to:
        try:
            sink.send(alert)
        except AlertError as error:
            logger.error("%s", error)
            failures.append(str(error))
    return failures
