"""The way in: each request is counted, asked for its key and held to its rate before the application sees it."""

import logging
import time
from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from imago.serving import client_address, host_name, request_id
from imago.serving.envelope import Envelope
from imago.serving.keys import Keys
from imago.serving.metrics import Metrics
from imago.serving.rate_limit import RateLimit
from imago.serving.refusal import Refusal, failure
from imago.serving.settings import ServingSettings

LONGEST_PATH = 200  # characters of a path that are logged

logger = logging.getLogger("imago.endpoint")
access = logging.getLogger("imago.access")


class Entrance:
    """An ASGI application in front of another, some of whose paths are open to everybody."""

    def __init__(
        self, inside: Starlette, settings: ServingSettings, metrics: Metrics, *, open_paths: frozenset[str]
    ) -> None:
        self.inside = inside
        self.metrics = metrics
        self.open_paths = open_paths
        self.hosts = frozenset(settings.hosts)
        self.keys = Keys(settings.keys, fixed=settings.api_key, probe=settings.probe_key)
        self.rate = RateLimit(settings.rate_limit, time.monotonic, settings.rates)
        self._admission = _with_cors(self._admitted, settings.cors_origins)
        self._envelope = Envelope(_behind(settings.trusted_proxies, self._counted))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._envelope(scope, receive, send)
        else:
            await self.inside(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admission(scope, receive, watched)
        except Exception:
            logger.exception("%s %s failed.", scope["method"], scope["path"][:LONGEST_PATH])
            if not status:
                await failure().response()(scope, receive, watched)
        finally:
            route, seconds = self._route(scope), time.perf_counter() - started
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if access.isEnabledFor(logging.INFO):
                _log(scope, status, seconds)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            host_name.check(request.headers.get("host", ""), self.hosts)
            if request.url.path not in self.open_paths:
                self._let_in(request)
            await self.inside(scope, receive, send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        except ClientDisconnect:
            return

    def _let_in(self, request: Request) -> None:
        """Check the key, then the rate of whose key it is, or of the address. Raises Refusal."""
        host = request.client.host if request.client else ""
        counted = f"address {client_address.client(host)}"
        try:
            name = self.keys.name_of(request.headers)
        except Refusal:
            self.rate.check(counted)  # a key cannot be guessed at any rate
            raise
        request.scope["imago.counted"] = name or counted
        request.scope["imago.client"] = name or (f"address {client_address.plain(host)}" if host else "nobody")
        self.rate.check(name or counted)

    def _route(self, scope: Scope) -> str:
        for route in self.inside.routes:
            if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
                return route.path
        return "none"


def counted_as(request: Request) -> str:
    """Return by what the client of a request is counted: its key's name, or its address."""
    return str(request.scope.get("imago.counted", ""))


def _with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Let pages of other origins ask, where the deployer has listed some; by default a browser lets none."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-API-Key", request_id.HEADER),
        expose_headers=("Retry-After", request_id.HEADER),
    )


def _behind(proxies: tuple[str, ...], app: ASGIApp) -> ASGIApp:
    """Take the client from `X-Forwarded-For` where a listed proxy asks: the last address in it that is no such proxy's.

    A client can write into that header whatever it likes, but not behind what the proxy writes.
    """
    trusted = client_address.in_both_spellings(proxies)
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted)) if proxies else app


def _log(scope: Scope, status: int, seconds: float) -> None:
    method, path = scope["method"], scope["path"][:LONGEST_PATH]
    facts = {"method": method, "path": path, "status": status, "seconds": round(seconds, 6)}
    access.info("%s %s %d", method, path, status, extra=facts | {"client": scope.get("imago.client")})
