"""Serves one Bento in this process, first behind its private door and, once told to, behind the public one as well.

Run as a file under the supervisor, whose protocol it speaks. It imports nothing of Imago: the service comes out of the
Bento, with the code that the Bento was built with.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import itertools
import json
import logging
import math
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import uvicorn
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_SECONDS = 2.0  # that a client may take to ask once more, and be told that this is the last answer here
DRAIN_SECONDS = 25.0
LAST_SECONDS = 2  # for what has not ended in that time: the supervisor kills after 30
HOW_STARTED = "IMAGO_SUPERVISOR"  # the supervisor, as JSON
LOOK_SECONDS = 0.2  # between two looks whether we are relieved
AGAIN_SECONDS = 5.0  # before another supervisor is started, where one has come to nothing
TELL_SECONDS = 60.0
HEAD_SECONDS = 10.0  # from a connection's beginning, or the answer before, to the end of a request's head
HEAD_BYTES = 65_536
SLOW_SECONDS = 5.0  # from there to the end of its body, after which a connection may give way to another
ANSWER_SECONDS = 120.0  # from there to the end of the answer, which a client may read slowly
KEEP_ALIVE_SECONDS = 5
BACKLOG = 1024
CONNECTIONS = "IMAGO_MAX_CONNECTIONS"
MAX_CONNECTIONS = 1000
SPARE_FILES = 500 + BACKLOG  # what the service opens itself, and what is accepted before it is counted

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

    Who is refused before all was sent may go on sending for a while, because who is cut off does not hear why. Beyond
    `most` connections of this process, the one is closed that has waited longest for its client to ask, as it does
    between two requests; where there is none, that whose client has been sending longest, and slowly; where all are
    being answered, the new one is refused.
    """

    most = MAX_CONNECTIONS
    stalled = 0  # bytes in a row that ended no head, and were no body
    moved = False
    idle_since = math.inf  # by time.monotonic; inf: it is not idle
    sending_since = math.inf  # likewise; inf: no body is being sent
    patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.ws_protocol_class = None  # which would lead past all this
        _counts().open.inc()
        self._expect_head()
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        _counts().open.dec()
        self._after_all()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.moved = False
        super().data_received(data)
        self.stalled = 0 if self.moved else self.stalled + len(data)
        if self.stalled > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head or trailers have more than {HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        self.moved = True
        self._after(ANSWER_SECONDS, self.transport.abort)
        self.sending_since = time.monotonic()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.sending_since = math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        piped = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif not piped:
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", "malformed", msg)

    def is_idle(self) -> bool:
        """Tell whether it waits for its client to ask, who has also taken the answer before."""
        return self.idle_since < math.inf and not self.transport.get_write_buffer_size()

    def is_left(self, since: float) -> bool:
        """Tell whether its client has asked nothing for a while since then, nor begun to."""
        return self.is_idle() and not self.stalled and time.monotonic() - max(self.idle_since, since) > LINGER_SECONDS

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, Patient) and one is not self]
        idle = min((one for one in others if one.is_idle()), key=lambda one: one.idle_since, default=None)
        slow = min(others, key=lambda one: math.inf if one.pipeline else one.sending_since)  # who pipelines is paused
        if idle is not None:
            _counts().over.labels("idle_closed").inc()
            idle.idle_since = math.inf
            idle.transport.abort()
        elif not slow.pipeline and time.monotonic() - slow.sending_since > SLOW_SECONDS:
            _counts().over.labels("slow_closed").inc()
            slow.sending_since = math.inf
            slow.transport.abort()
        else:
            _counts().over.labels("refused").inc()
            message = "Too many connections are open. Ask again in a second."
            self._refuse("503 Service Unavailable", "overloaded", message, "Retry-After: 1\r\n")

    def _refuse(self, status: str, code: str, message: str, more: str = "") -> None:
        request = uuid4().hex  # nobody has read whether it brought an id of its own
        body = json.dumps({"error": {"code": code, "message": message, "request_id": request}}).encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n{more}"
            f"X-Request-ID: {request}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._close()

    def _expect_head(self) -> None:
        self._after(HEAD_SECONDS, self._close)
        self.idle_since = time.monotonic()

    def _close(self) -> None:
        """Close once the client has read what it was told, for which it is not waited without end either."""
        self.transport.close()
        self._after(ANSWER_SECONDS, self.transport.abort)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do this, unless the client has done its part before."""
        self._after_all()
        self.patience = self.loop.call_later(seconds, act)

    def _after_all(self) -> None:
        self.idle_since = math.inf
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None


class _Counts(NamedTuple):
    open: Any
    over: Any


@functools.cache
def _counts() -> _Counts:
    """Return what /metrics is told of connections. Call it once the service says where its workers count together."""
    from prometheus_client import Counter, Gauge

    over = "Connections over the limit: idle or slow ones that were closed for a new one, and new ones refused."
    return _Counts(
        Gauge("imago_connections", "Connections that are open.", multiprocess_mode="livesum"),
        Counter("imago_connections_over_limit", over, ["outcome"]),
    )


def bound_connections(most: int) -> None:
    """Let this process hold so many connections, or fewer where it may not open the files for them."""
    needed = most + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # negative: without limit
    if 0 <= soft < needed:
        with contextlib.suppress(ValueError, OSError):  # what it may open then is asked below
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard < 0 else min(needed, hard), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    Patient.most = most if soft < 0 else min(most, max(soft - SPARE_FILES, soft // 2))
    if Patient.most < most:
        logger.warning("%d connections at most, not %d: this process may open %d files.", Patient.most, most, soft)


class Successor:
    """The supervisor in the place of one that was lost, started with the listening sockets that its workers have."""

    def __init__(self, environment: Mapping[str, str], private: socket.socket, public: socket.socket) -> None:
        told = json.loads(environment[HOW_STARTED])
        self.environment = environment
        self.control = Path(told["control"])
        self.folder: str = told["folder"]
        self.doors = {"--private": private.fileno(), "--public": public.fileno()}
        doors = [word for option, door in self.doors.items() for word in (option, str(door))]
        self.command: list[str] = [*told["python"], *doors, *told["arguments"]]
        self.process: subprocess.Popen[bytes] | None = None
        self.again = 0.0  # by time.monotonic

    def is_wanted(self) -> bool:
        """Tell whether the supervisor was lost: one that ends on purpose, or is ended, takes its control path along."""
        return self.control.exists()

    async def relieves(self) -> bool:
        """Say whether it has workers of its own that accept; where there is none, one is started."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.control)
        except ConnectionRefusedError:
            self._start()
            return False
        except OSError:
            return False
        try:
            writer.write(b'{"do": "relieve"}\n')
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            return bool(answer.get("relieved"))
        except (OSError, ValueError):
            return False
        finally:
            writer.close()

    def _start(self) -> None:
        """Start one, unless one has only just been: of those that several workers start, all but one end at once."""
        ended = self.process is None or self.process.poll() is not None
        if not ended or time.monotonic() < self.again:
            return
        self.again = time.monotonic() + AGAIN_SECONDS
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.environment,
                pass_fds=tuple(self.doors.values()),
                start_new_session=True,
            )
        except OSError as error:
            logger.warning("No other supervisor could be started: %s", error)


class Server(uvicorn.Server):
    """uvicorn with a second door, opened and closed over the supervisor's control socket."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: Draining,
        control: socket.socket,
        private: socket.socket,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(config)
        self.app = app
        self.control = control
        self.private = private
        self.environment = environment
        self.public: socket.socket | None = None
        self.told_to_end = False
        self.tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what is there stays: to look through it again would hold all requests up, for 20 ms and more
        self.control.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.control, self._listen)
        self._tell(b"R")

    def _listen(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self.control, 64, 4)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message or b"D" in message:
            self.loop.remove_reader(self.control)
            self._begin(self.drain() if message else self.outlive())
        for fd in fds:
            self.public = socket.socket(fileno=fd)
            self._begin(self.open(self.public))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain where somebody else than the supervisor ends this process, at once where that is said again."""
        if sig == signal.SIGTERM and self.started and not self.told_to_end:
            self.told_to_end = True
            if not self.app.on:
                self.app.on = True
                self.loop.call_soon_threadsafe(lambda: self._begin(self.drain()))
        else:
            super().handle_exit(sig, frame)

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is read next
            self.control.send(word)

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
        self.servers.append(await self.loop.create_server(protocol, sock=public, backlog=self.config.backlog))
        self._tell(b"A")

    async def outlive(self) -> None:
        """Serve on without a supervisor until another has workers that accept, then end; at once where that is meant.

        What was never published has nobody who would miss it.
        """
        successor = None
        if HOW_STARTED in self.environment and self.public is not None:
            successor = Successor(self.environment, self.private, self.public)
        tell = self.loop.time()
        while successor and successor.is_wanted() and not await successor.relieves():
            if self.loop.time() >= tell:
                tell += TELL_SECONDS
                logger.warning("The supervisor is lost: this worker serves on until another's have taken over.")
            await asyncio.sleep(LOOK_SECONDS)
        await self.drain()

    async def drain(self) -> None:
        """Accept nothing more, answer what is under way and what clients on their connections ask next, then end."""
        for server in self.servers:
            server.close()
        self.app.on = True
        since = time.monotonic()
        await asyncio.sleep(0.05)  # only then is what was just accepted among the connections
        while self._is_busy(since) and time.monotonic() < since + DRAIN_SECONDS:
            await asyncio.sleep(0.05)
        self.should_exit = True

    def _is_busy(self, since: float) -> bool:
        connections = (one for one in self.server_state.connections if isinstance(one, Patient))
        return bool(self.server_state.tasks) or not all(one.is_left(since) for one in connections)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one Bento.")
    parser.add_argument("tag")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    arguments = parser.parse_args()
    environment = dict(os.environ)  # before the service changes it
    bound_connections(int(os.environ.get(CONNECTIONS) or MAX_CONNECTIONS))
    app = Draining(Shortcut(load_application(arguments.tag)))
    control, private = socket.socket(fileno=arguments.control), socket.socket(fileno=arguments.fd)
    Server(configured(app), app, control, private, environment).run(sockets=[private])


def configured(app: Any, **options: Any) -> uvicorn.Config:
    """Return how uvicorn is set up."""
    return uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        backlog=BACKLOG,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
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
    logger.disabled = False  # as it left all loggers that there were
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
