"""What a worker puts around the application of a Bento."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from imago.config import DeployConfig
from imago.serving.processes import GRACE_SECONDS
from imago.serving.settings import ServingSettings
from imago.serving.worker import DRAIN_SECONDS, MAX_CONNECTIONS, Shortcut, configured


class Slow:
    """A middleware that keeps what it has seen."""

    seen: list[str] = []  # noqa: RUF012 - emptied by each test

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope.get("path", scope["type"]))
        await self.app(scope, receive, send)


@contextmanager
def client() -> Iterator[TestClient]:
    async def theirs(_: Request) -> PlainTextResponse:
        return PlainTextResponse("theirs")

    async def ours(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"ours {scope['path']}")(scope, receive, send)

    routes = [Route("/readyz", theirs), Mount("/", app=ours), Route("/", theirs)]
    Slow.seen.clear()
    with TestClient(Shortcut(Starlette(routes=routes, middleware=[Middleware(Slow)]))) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/predict", "/readyz/", "/nothing"])
def test_what_is_mounted_is_asked_without_the_middleware_before_it(path: str) -> None:
    with client() as endpoint:
        assert endpoint.get(path).text == f"ours {path}"
    assert Slow.seen == ["lifespan"]


def test_what_the_server_answers_itself_still_goes_through_it() -> None:
    with client() as endpoint:
        assert endpoint.get("/readyz").text == "theirs"
        assert endpoint.post("/readyz").text == "ours /readyz"
    assert Slow.seen == ["lifespan", "/readyz", "/readyz"]


def test_a_worker_ends_before_its_supervisor_would_kill_it() -> None:
    last = configured(None).timeout_graceful_shutdown
    assert last is not None
    assert DRAIN_SECONDS + last < GRACE_SECONDS - 2


def test_as_many_connections_are_held_however_it_is_started() -> None:
    assert DeployConfig().max_connections == ServingSettings().max_connections == MAX_CONNECTIONS
