"""What every answer has, whoever asks and whatever is answered."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from imago.config import DeployConfig
from imago.serving import logs
from imago.serving.entrance import Entrance
from imago.serving.envelope import Envelope
from imago.serving.metrics import Metrics
from imago.serving.settings import LogFormat, ServingSettings
from imago.serving.supervisor import say
from imago.serving.trial import environment

logger = logging.getLogger("imago.test")
ORIGIN = "https://moths.example"


async def echo(_: Request) -> Response:
    logger.warning("echoed")
    return JSONResponse({})


async def fail(_: Request) -> Response:
    raise RuntimeError("secret")


async def cached(_: Request) -> Response:
    return PlainTextResponse("page", headers={"Cache-Control": "no-cache"})


def open_entrance(**options: Any) -> TestClient:
    inside = Starlette(routes=[Route("/echo", echo), Route("/fail", fail), Route("/cached", cached)])
    settings = ServingSettings(**options)
    return TestClient(Entrance(inside, settings, Metrics(CollectorRegistry()), open_paths=frozenset({"/cached"})))


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[LogFormat], Callable[[], list[str]]]]:
    """Configure the log, and give what reads its lines; what pytest has set up comes back afterwards."""
    loggers = [logging.getLogger(name) for name in ("bentoml", "uvicorn.error", "circus", "imago.access")]
    before = [(each, each.level, each.handlers, each.propagate) for each in loggers]
    handlers, root_level = logging.root.handlers, logging.root.level
    logging.root.setLevel(logging.WARNING)  # as a worker's is: ZenML, in another test, makes more be said

    def configure(log_format: LogFormat) -> Callable[[], list[str]]:
        logs.configure(log_format)
        return lambda: capsys.readouterr().err.splitlines()

    yield configure
    logging.root.handlers = handlers
    logging.root.setLevel(root_level)
    logging.captureWarnings(False)
    for each, level, own, propagate in before:
        each.handlers, each.propagate = own, propagate
        each.setLevel(level)


def test_an_endpoint_of_this_machine_is_asked_for_by_no_strangers_name() -> None:
    local = environment("moths:1", DeployConfig())["IMAGO_HOSTS"].split()
    endpoint = open_entrance(hosts=tuple(local))
    for host in ("localhost:3000", "LOCALHOST", "localhost.", "moths.localhost:1", "127.0.0.1:3000", "[::1]:3000", ""):
        assert endpoint.get("/echo", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example:3000", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost", "[evil]:1"):
        for path in ("/echo", "/cached"):
            answer = endpoint.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host"), host


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, "127.0.0.1 localhost"),
        ({"host": "::1"}, "::1 localhost"),
        ({"host": "0.0.0.0"}, ""),
        ({"trusted_proxies": ["127.0.0.1"]}, ""),
        ({"host": "Moths.internal", "hosts": ["moths.example"]}, "localhost moths.example moths.internal"),
        ({"trusted_proxies": ["127.0.0.1"], "hosts": ["moths.example"]}, "127.0.0.1 localhost moths.example"),
    ],
)
def test_which_names_are_taken_follows_from_who_can_reach_it(config: dict[str, Any], names: str) -> None:
    assert environment("moths:1", DeployConfig(**config))["IMAGO_HOSTS"] == names


@pytest.mark.parametrize("given", ["a", "7f3c.A-b_9", "x" * 64])
def test_a_requests_id_is_the_one_that_it_brings(given: str) -> None:
    assert open_entrance().get("/echo", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "{}", 'a","level":"x', "\xe4"])
def test_an_id_that_could_hide_something_is_replaced(given: str) -> None:
    headers = [(b"X-Request-ID", given.encode("latin-1"))]
    made = open_entrance().get("/echo", headers=headers).headers["x-request-id"]
    assert len(made) == 32
    assert made.isalnum()


def test_every_request_has_another_id() -> None:
    entrance = open_entrance()
    assert len({entrance.get("/echo").headers["x-request-id"] for _ in range(20)}) == 20


def test_an_error_names_its_request() -> None:
    response = open_entrance(api_key="open sesame").get("/echo", headers={"X-Request-ID": "mine"})
    assert (response.status_code, response.json()["error"]["request_id"]) == (401, "mine")


@pytest.mark.parametrize("path", ["/echo", "/fail", "/cached", "/nothing"])
def test_every_answer_has_the_headers_that_keep_a_browser_from_being_misled(path: str) -> None:
    response = open_entrance().get(path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == ("no-cache" if path == "/cached" else "no-store")
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_envelope_in_an_envelope_says_nothing_twice() -> None:
    response = TestClient(Envelope(open_entrance().app)).get("/echo")
    for name in ("x-request-id", "x-frame-options", "cache-control"):
        assert len(response.headers.get_list(name)) == 1


def test_pages_of_another_origin_may_not_ask_unless_they_are_listed() -> None:
    closed, opened = open_entrance(), open_entrance(cors_origins=(ORIGIN,), api_key="open sesame")
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    assert closed.options("/echo", headers=asks).status_code == 405
    assert opened.options("/echo", headers=asks).headers["access-control-allow-origin"] == ORIGIN
    assert opened.options("/echo", headers=asks | {"Origin": "https://other.example"}).status_code == 400
    refused = opened.get("/echo", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    other = opened.get("/echo", headers={"Origin": "https://other.example", "X-API-Key": "open sesame"})
    assert "access-control-allow-origin" not in other.headers


def answers_of(entrance: TestClient, *asked: tuple[str, str | None]) -> list[int]:
    """Ask once from each address, with what it writes into X-Forwarded-For."""
    return [
        TestClient(entrance.app, client=(address, 1))
        .get("/echo", headers={"X-Forwarded-For": said} if said else {})
        .status_code
        for address, said in asked
    ]


def test_nobody_chooses_an_address_by_a_header() -> None:
    asked = [("127.0.0.1", "10.1.1.1"), ("127.0.0.1", "10.1.1.2"), ("127.0.0.1", None), ("10.9.9.9", "127.0.0.1")]
    assert answers_of(open_entrance(rate_limit=0.001), *asked) == [200, 429, 429, 200]


def test_behind_a_listed_proxy_the_client_is_the_last_address_that_is_no_proxys() -> None:
    entrance = open_entrance(rate_limit=0.001, trusted_proxies=("10.0.0.0/24", "fd00::1"))
    asked: list[tuple[str, str | None]] = [
        ("10.0.0.5", "192.0.2.1"),
        ("10.0.0.5", "192.0.2.2"),
        ("10.0.0.6", "192.0.2.1"),  # the same client by another proxy
        ("10.0.0.5", "198.51.100.7, 192.0.2.2"),  # what a client writes stands before what the proxy writes
        ("10.0.0.5", "192.0.2.2, 10.0.0.9"),  # through two proxies
        ("fd00::1", "192.0.2.3"),
        ("203.0.113.1", "192.0.2.4"),  # no proxy of ours: it is counted itself
        ("203.0.113.1", "192.0.2.5"),
    ]
    assert answers_of(entrance, *asked) == [200, 200, 429, 429, 429, 200, 200, 429]


def test_lines_of_text_name_their_request(log: Any) -> None:
    lines = log("text")
    open_entrance().get("/echo", headers={"X-Request-ID": "mine"})
    logger.warning("of nobody")
    first, second = lines()
    assert first.endswith("[WARNING] imago.test: echoed (request mine)")
    assert second.endswith("imago.test: of nobody")


def test_as_json_each_line_is_an_object_and_each_request_has_one(log: Any) -> None:
    lines = log("json")
    entrance = open_entrance(api_key="open sesame")
    entrance.get("/echo", headers={"X-Request-ID": "mine", "X-API-Key": "open sesame"})
    echoed, asked = (json.loads(line) for line in lines())
    assert (echoed["logger"], echoed["level"], echoed["message"]) == ("imago.test", "WARNING", "echoed")
    assert (asked["logger"], asked["message"]) == ("imago.access", "GET /echo 200")
    assert (asked["method"], asked["path"], asked["status"], asked["client"]) == ("GET", "/echo", 200, "environment")
    assert asked["seconds"] > 0
    assert {echoed["request_id"], asked["request_id"]} == {"mine"}
    assert set(echoed) == {"level", "logger", "message", "request_id", "time"}


def test_the_supervisor_writes_as_its_workers_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("worker 7 ended with -9")
    monkeypatch.setenv("IMAGO_LOG_FORMAT", "json")
    say("worker 8 ended with -9")
    text, record = capsys.readouterr().err.splitlines()
    assert text == "[supervisor] worker 7 ended with -9"
    assert json.loads(record)["message"] == "worker 8 ended with -9"


def test_our_own_fault_is_logged_whole_in_one_line_with_its_request(log: Any) -> None:
    lines = log("json")
    assert open_entrance().get("/fail", headers={"X-Request-ID": "mine"}).status_code == 500
    failed, asked = (json.loads(line) for line in lines())
    assert (failed["level"], failed["message"], failed["request_id"]) == ("ERROR", "GET /fail failed.", "mine")
    assert "RuntimeError: secret" in failed["traceback"]
    assert asked["status"] == 500


def test_a_path_cannot_write_a_line_of_its_own(log: Any) -> None:
    lines = log("json")
    open_entrance().get("/a%0Ab" + "x" * 1000)
    (asked,) = (json.loads(line) for line in lines())
    assert asked["path"].startswith("/a\nbx")
    assert len(asked["path"]) == 200
