"""The endpoint's application behind a real socket on loopback, in this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from imago.serving.app import Application
from imago.serving.metrics import Metrics
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from imago.serving.worker import configured
from tests.waiting import until


@contextmanager
def application(
    runtime: Runtime, settings: ServingSettings, *, version: str = "7", **described: Any
) -> Iterator[Application]:
    """An application that is closed at the end."""
    opened = Application(runtime, settings, Metrics(CollectorRegistry()), version=version, **described)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def listening(runtime: Runtime, settings: ServingSettings, *, version: str = "7", **described: Any) -> Iterator[str]:
    """Serve a model on a free port; gives the address."""
    with application(runtime, settings, version=version, **described) as opened, over_sockets(opened) as url:
        yield url


@contextmanager
def over_sockets(app: ASGIApp, door: socket.socket | None = None) -> Iterator[str]:
    """Serve any application as a worker does, at a door of one's own or on a free port; gives the address."""
    server = uvicorn.Server(configured(app, port=0, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([door] if door else None,), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, 20, "the server has not started")
        listener = door or server.servers[0].sockets[0]
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
