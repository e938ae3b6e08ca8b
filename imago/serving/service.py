"""The BentoML service: it finds its model by the exact tag that its Bento pins, and mounts the HTTP application.

Set up by the environment of whoever starts it:

- `IMAGO_PREDICTIONS`: the SQLite file that predictions are kept in; absent: none are kept
- `IMAGO_KEEP_DAYS`: after how many days they are forgotten; absent: 90. Of a million and more, the oldest go sooner
- `IMAGO_MODEL_VERSION`: the version that answers name; absent: the Bento's
- `IMAGO_TOP_K`, `IMAGO_MAX_UPLOAD_BYTES`, `IMAGO_MAX_PIXELS`: how many labels an answer has, and what a picture may be
- `IMAGO_MAX_BATCH`: how many pictures of requests that wait go through the graph at once; absent: 4 where a measurement
  at the start finds that clearly cheaper, else 1
- `IMAGO_API_KEY`: a key that clients must send (`Authorization: Bearer KEY` or `X-API-Key: KEY`); absent: none
- `IMAGO_KEYS`: the file of the keys with names that they may send as well, looked at once a second; absent: none
- `IMAGO_PROBE_KEY`: the key of a deployment's own probes, made anew for each; absent: none
- `IMAGO_SHADOW`: the file that says which version is to be asked a share of the same, unseen, looked at once a second;
  absent: none ever is
- `IMAGO_SHELF`: the folder of the model's reports, which `/reports` shows; absent: it shows none
- `IMAGO_HOSTS`: the names that it may be asked for by, beside addresses, with spaces between; absent: any
- `IMAGO_CORS_ORIGINS`: whose pages may ask from a browser, such as `https://moths.example`, with spaces between;
  absent: nobody's
- `IMAGO_LOG_FORMAT`: `text`, or `json` for one JSON object a line and a line a request; absent: text
- `IMAGO_RATE_LIMIT`: requests a second and key, or address where no key is asked for, of all workers together; absent:
  no limit
- `IMAGO_TRUSTED_PROXIES`: the addresses and networks of the proxies whose `X-Forwarded-For` names the client, with
  spaces between; absent: nobody's
- `IMAGO_MAX_CONNECTIONS`: how many a worker holds, before idle ones are closed or new ones refused; absent: 1000
- `IMAGO_WORKERS`: worker processes under `bentoml serve`; absent: 1
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
import uvicorn.config
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from imago.errors import ImagoError
from imago.serving.answers import TESTED, Tested
from imago.serving.envelope import Envelope
from imago.serving.package import ModelPackage
from imago.serving.refusal import Refusal
from imago.serving.settings import ServingSettings, workers_from_environment
from imago.serving.worker import Patient, bound_connections

if TYPE_CHECKING:
    from imago.serving.app import Application

os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # else uvicorn, under `bentoml serve`, believes all of this machine
uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{Patient.__module__}:Patient"  # likewise: it alone would wait for ever
SLOWEST_SECONDS = 300.0  # our own bounds are tighter, and answer better


class Door:
    """What is mounted when the service is imported; it leads to the application once that stands."""

    def __init__(self) -> None:
        self.application: Application | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.application is not None:
            await self.application(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/livez":
            await JSONResponse({"status": "alive"})(scope, receive, send)
        else:
            refusal = Refusal(503, "not_ready", "The model is not loaded.", retry_after=2)
            await refusal.response()(scope, receive, send)


door = Door()


class Probes:
    """An ASGI middleware that leads to the door what BentoML would answer itself, in its own words."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        probed = scope["type"] == "http" and scope["path"] in ("/livez", "/readyz")
        await (door if probed else self.app)(scope, receive, send)


@bentoml.service(
    name="imago",
    workers=workers_from_environment(os.environ),
    traffic={"timeout": SLOWEST_SECONDS},
    metrics={"enabled": False, "namespace": "bentoml"},
    logging={"access": {"enabled": False, "skip_paths": [], "format": {"trace_id": "032x", "span_id": "016x"}}},
)
@bentoml.asgi_app(door, path="/")
class Endpoint:
    """An image classifier over HTTP."""

    def __init__(self) -> None:
        from imago.serving import logs
        from imago.serving.metrics import Metrics, share_between_workers

        settings = ServingSettings.from_environment(os.environ)
        log = logs.configure(settings.log_format)
        bound_connections(settings.max_connections)
        home = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
        counts = home / "imago-metrics"
        shared = share_between_workers(counts)
        from imago.serving.app import Application
        from imago.serving.batching import pictures_at_once
        from imago.serving.runtime import Runtime

        settings = replace(settings, rates=counts / str(os.getppid()) / "rates")
        package, version = pinned_package()
        card, tested = description()
        runtime = Runtime(package)
        for sample in package.golden[:1]:
            picture = (package.path / "golden" / sample.file).read_bytes()
            runtime.predict([picture])
            if settings.max_batch is None:
                settings = replace(settings, max_batch=pictures_at_once(runtime.predict, picture))
        self.application = door.application = Application(
            runtime, settings, Metrics(shared=shared), version=version, card=card, tested=tested, log=log
        )

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        door.application = None
        self.application.close()


Endpoint.add_asgi_middleware(Envelope)  # type: ignore[attr-defined]  # for what BentoML answers itself
Endpoint.add_asgi_middleware(Probes)  # type: ignore[attr-defined]


def pinned_package() -> tuple[ModelPackage, str]:
    """Return the package that this service's Bento pins, and its version. Raises ImagoError outside a Bento."""
    bento = getattr(Endpoint, "bento", None)
    if bento is None:
        raise ImagoError("The service runs only out of a Bento; build one with imago.serving.bento.build_bento.")
    tags = [model.tag for model in bento.info.all_models]
    if len(tags) != 1:
        raise ImagoError(f"The Bento {bento.tag} pins {len(tags)} models; it must pin exactly one.")
    return ModelPackage(Path(bentoml.models.get(tags[0]).path)), str(tags[0].version)


def description() -> tuple[str | None, Tested | None]:
    """Return the card that this service's Bento is described by, and how it says that the model was tested."""
    bento = Endpoint.bento  # type: ignore[attr-defined]
    said = bento.info.labels.get(TESTED)
    return bento.doc or None, Tested.model_validate_json(said) if said else None
