"""Serves one Bento in this process, first behind its private door and, once told to, behind the public one as well.

Run as a file under the supervisor, whose protocol it speaks. It imports nothing of Imago: the service comes out of the
Bento, with the code that the Bento was built with.
"""

import argparse
import asyncio
import functools
import itertools
import json
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

QUIET_SECONDS = 0.5
DRAIN_SECONDS = 25.0
HEAD_SECONDS = 10.0  # from a connection's beginning, or the answer before, to the end of a request's head
HEAD_BYTES = 65_536

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

logger = logging.getLogger("imago.worker")


class Draining:
    """An ASGI application that, once it drains, asks every client to connect anew, which is to the next version."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.on = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if self.on and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, send_and_close if scope["type"] == "http" else send)


class Shortcut:
    """An ASGI application that leads past BentoML's middleware to what a Bento mounts at its root.

    Its tracing, and a timer a request that lives for minutes, cost more than our own code does. What BentoML answers
    itself, such as `/readyz`, still goes to it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        before = list(itertools.takewhile(lambda route: not isinstance(route, Mount), app.routes))
        self.theirs = {getattr(route, "path", "") for route in before}
        self.mounted = app.routes[len(before)].app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        straight = scope["type"] == "http" and scope["path"] not in self.theirs
        await (self.mounted if straight else self.app)(scope, receive, send)


class Patient(HttpToolsProtocol):
    """uvicorn's protocol, whose patience has an end: it alone would read and keep a head, or trailers, for ever.

    Who is refused before all was sent may go on sending for a while, because who is cut off does not hear why.
    """

    stalled = 0  # bytes in a row that ended no head, and were no body
    moved = False
    head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.moved = False
        super().data_received(data)
        self.stalled = 0 if self.moved else self.stalled + len(data)
        if self.stalled > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head or trailers have more than {HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        self.moved = True
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.moved = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        piped = bool(self.pipeline)
        super().on_response_complete()
        if not piped and not self.transport.is_closing():
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        error = {"code": "malformed", "message": msg, "request_id": ""}
        body = json.dumps({"error": error}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _expect_head(self) -> None:
        self.head = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _head_came(self) -> None:
        if self.head is not None:
            self.head.cancel()
            self.head = None


class Server(uvicorn.Server):
    """uvicorn with a second door, opened and closed over the supervisor's control socket."""

    def __init__(self, config: uvicorn.Config, app: Draining, control: socket.socket) -> None:
        super().__init__(config)
        self.app = app
        self.control = control
        self.tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.control.setblocking(False)
        asyncio.get_running_loop().add_reader(self.control, self._listen)
        self.control.send(b"R")

    def _listen(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self.control, 64, 4)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message or b"D" in message:
            asyncio.get_running_loop().remove_reader(self.control)
            self._begin(self.drain())
        for fd in fds:
            self._begin(self.open(socket.socket(fileno=fd)))

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def open(self, public: socket.socket) -> None:
        """Accept on this listening socket, too."""
        make: Any = self.config.http_protocol_class
        protocol = functools.partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(protocol, sock=public, backlog=self.config.backlog))
        self.control.send(b"A")

    async def drain(self) -> None:
        """Accept nothing more, answer what is under way, then end."""
        for server in self.servers:
            server.close()
        self.app.on = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        await asyncio.sleep(QUIET_SECONDS)
        while self.server_state.tasks and loop.time() < deadline:
            await asyncio.sleep(0.05)
        self.should_exit = True


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one Bento.")
    parser.add_argument("tag")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    arguments = parser.parse_args()
    app = Draining(Shortcut(load_application(arguments.tag)))
    control = socket.socket(fileno=arguments.control)
    Server(configured(app), app, control).run(sockets=[socket.socket(fileno=arguments.fd)])


def configured(app: Any, **options: Any) -> uvicorn.Config:
    """Return how uvicorn is set up."""
    return uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        backlog=1024,
        log_config=None,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
        proxy_headers=False,  # it would believe whoever asks from this machine; the service knows its own proxies
        server_header=False,
        **options,
    )


def load_application(tag: str) -> Any:
    """Return the ASGI application of a Bento by its exact tag, set up as BentoML's own worker does."""
    from _bentoml_impl.loader import load  # type: ignore[import-untyped]
    from bentoml._internal.container import BentoMLContainer
    from bentoml._internal.context import server_context
    from bentoml._internal.log import configure_server_logging

    configure_server_logging()
    server_context.worker_index = 1
    server_context.service_type = "entry_service"
    service = load(tag, standalone_load=True)
    BentoMLContainer.development_mode.set(False)
    server_context.service_name = service.name
    server_context.service_routes = [api.route for api in service.apis.values()]
    if service.bento is not None:
        server_context.bento_name = service.bento.tag.name
        server_context.bento_version = service.bento.tag.version or "not available"
    return service.to_asgi(is_main=True)


if __name__ == "__main__":
    main()
