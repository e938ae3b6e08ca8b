"""What an endpoint tells of its model and of itself, to whoever asks."""

from collections.abc import Callable
from math import isfinite
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imago.data import transforms
from imago.evaluation.explain import method_of
from imago.serving.answers import Tested
from imago.serving.openapi import describe
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings


class About:
    """The routes of the model's facts, its card, and the description of the endpoint.

    Without a `card` its package's own is shown.
    `guarded` says whether clients are asked for a key, which may change while the endpoint serves.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: ServingSettings,
        model: dict[str, str],
        *,
        card: str | None,
        tested: Tested | None,
        guarded: Callable[[], bool],
    ) -> None:
        self.card = runtime.package.card if card is None else card
        self._guarded = guarded
        self._facts = _facts(runtime, settings, model, tested)
        title = f"Imago: {model['name']}"
        self._descriptions = {  # who has no key may read the description, and is told no class names there
            True: JSONResponse(describe(title, model["version"], guarded=True)).body,
            False: JSONResponse(describe(title, model["version"], classes=runtime.classes)).body,
        }
        self.routes = [
            Route("/info", self.info),
            Route("/card", self.show_card),
            Route("/docs.json", self.docs),
        ]

    async def info(self, _: Request) -> Response:
        return JSONResponse(self._facts)

    async def show_card(self, _: Request) -> Response:
        return Response(self.card, media_type="text/plain")

    async def docs(self, _: Request) -> Response:
        return Response(self._descriptions[self._guarded()], media_type="application/json")


def _facts(runtime: Runtime, settings: ServingSettings, model: dict[str, str], tested: Tested | None) -> dict[str, Any]:
    spec = runtime.spec
    return {
        "model": model,
        "architecture": spec.architecture,
        "fingerprint": runtime.package.fingerprint,
        "created": spec.created,
        "metrics": {name: value if isfinite(value) else None for name, value in spec.metrics.items()},
        "tested": tested and tested.model_dump(),
        "classes": spec.classes,
        "image_size": spec.preprocessing.image_size,
        "reject_threshold": spec.reject_threshold,
        "top_k": min(settings.top_k, len(spec.classes)),
        "feedback": settings.predictions is not None,
        "reports": settings.shelf is not None,
        "heat_map": method_of(runtime),
        "limits": {
            "upload_bytes": settings.max_upload_bytes,
            "pixels": settings.max_pixels,
            "batch_pictures": settings.max_pictures,
            "batch_bytes": settings.max_batch_bytes,
            "formats": transforms.FORMATS,
        },
    }
