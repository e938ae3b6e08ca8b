"""Alerts arrive, and where they do not, this is said and nothing else fails."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imago.errors import ConfigError
from imago.monitoring.alerts import Alert, AlertError, LogSink, WebhookSink, alert, send
from imago.monitoring.drift import DriftReport, DriftTest, Verdict, Window
from tests.loopback import Handler, serving

ALERT = Alert("moths drifted", "3 of 9 tests found drift.", {"verdict": "drifted", "count": 200})


@contextmanager
def webhook(*statuses: int, location: str | None = None) -> Iterator[tuple[str, list[dict]]]:
    """A server on loopback that answers with these statuses, the last one from then on, and keeps what it was sent."""
    received: list[dict] = []

    class Hook(Handler):
        def do_POST(self) -> None:
            received.append(json.loads(self.body()))
            headers = {"Location": location} if location else {}
            self.reply(statuses[min(len(received), len(statuses)) - 1], **headers)

    with serving(Hook) as address:
        yield f"{address}/hooks/s3cret", received


def test_the_webhook_is_sent_the_alert_as_json() -> None:
    with webhook(200) as (url, received):
        WebhookSink(url).send(ALERT)
    assert received == [
        {
            "text": "moths drifted: 3 of 9 tests found drift.",
            "title": "moths drifted",
            "facts": {"verdict": "drifted", "count": 200},
        }
    ]


def test_a_server_error_is_tried_again() -> None:
    with webhook(500, 204) as (url, received):
        WebhookSink(url).send(ALERT)
    assert len(received) == 2


def test_a_refusal_is_not_tried_again_and_the_secret_address_is_not_told() -> None:
    with webhook(403) as (url, received), pytest.raises(AlertError) as failure:
        WebhookSink(url).send(ALERT)
    assert len(received) == 1
    assert "403" in str(failure.value)
    assert "s3cret" not in str(failure.value)


def test_a_redirect_is_not_followed() -> None:
    with (
        webhook(200) as (elsewhere, stolen),
        webhook(307, location=elsewhere) as (url, _),
        pytest.raises(AlertError, match="307"),
    ):
        WebhookSink(url).send(ALERT)
    assert stolen == []


def test_a_webhook_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(AlertError, match="ReadTimeout"):
            WebhookSink(url, timeout_seconds=0.4).send(ALERT)


def test_a_failed_alert_is_told_and_the_others_are_still_sent(caplog: pytest.LogCaptureFixture) -> None:
    with webhook(404) as (url, _), caplog.at_level(logging.WARNING):
        failures = send(ALERT, [WebhookSink(url), LogSink()])
    assert failures == ["The webhook at 127.0.0.1 did not take the alert: it answered 404. Check IMAGO_ALERT_WEBHOOK."]
    assert "moths drifted: 3 of 9 tests found drift." in caplog.messages


@pytest.mark.parametrize("address", ["file:///etc/passwd", "chat.example/hook", "http://"])
def test_an_address_that_is_not_http_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not an http"):
        WebhookSink(address)


def report(verdict: Verdict) -> DriftReport:
    found = DriftTest(
        name="sharpness", statistic=0.5, threshold=0.2, p_value=1e-9, effect_size=0.5, drifted=True, sentence="blurred"
    )
    return DriftReport(
        verdict=verdict,
        sentence="1 of 9 tests found drift in 200 predictions: blurred.",
        window=Window(since=None, until=None, count=200),
        tests=(found,),
        accuracy=None,
        feedback=0,
        estimated_accuracy=0.9,
        evidently={},
        page="",
    )


def test_a_drifted_window_is_told_with_what_drifted() -> None:
    with webhook(200) as (url, received):
        assert alert(report("drifted"), [WebhookSink(url)]) == []
    [told] = received
    assert told["text"].startswith("Drift: Train again")
    assert told["facts"]["drifted"] == "sharpness"
    assert told["facts"]["count"] == 200


@pytest.mark.parametrize("verdict", ["stable", "not_enough_data"])
def test_nothing_else_is_told(verdict: Verdict) -> None:
    with webhook(200) as (url, received):
        assert alert(report(verdict), [WebhookSink(url)]) == []
    assert received == []
