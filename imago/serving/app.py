"""The endpoint's HTTP application: routes, and the order in which a request is bounded, answered and kept."""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imago.data import transforms
from imago.evaluation.explain import fit_within, heat_map, overlay
from imago.monitoring.prediction_store import PredictionStore, prediction_row
from imago.monitoring.prediction_writer import PredictionWriter
from imago.serving import pages
from imago.serving.about import About
from imago.serving.admission import Budget, Queue
from imago.serving.answers import Tested
from imago.serving.batching import AT_ONCE
from imago.serving.degraded import degraded
from imago.serving.entrance import Entrance, counted_as
from imago.serving.feedback import Feedback
from imago.serving.logs import Log
from imago.serving.metrics import Metrics
from imago.serving.mirror import Asked, Mirror, server_timing
from imago.serving.refusal import (
    Refusal,
    answer_failure,
    answer_http_exception,
    answer_nobody,
    answer_refusal,
    refusal_of_picture,
)
from imago.serving.runtime import Prediction, Runtime, Unreadable
from imago.serving.settings import PROBE_HEADER, ServingSettings
from imago.serving.upload import Take, read_pictures

OPEN_PATHS = pages.OPEN_PATHS | {"/docs.json", "/livez", "/readyz"}
EXPLAIN_SIDE = 320  # pixels: the longer side of a heat map
MAX_EXPLAIN = 4
HUNG_SECONDS = 60.0  # of one turn at its usual size: the longest measured, 4 PNGs of 50 Mpixel when busy, is 5


class Application:
    """An ASGI application that answers for one model. Without a `card` its package's own is shown.

    `log` is what writes this process's log.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: ServingSettings,
        metrics: Metrics,
        *,
        version: str,
        card: str | None = None,
        tested: Tested | None = None,
        log: Log | None = None,
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.metrics = metrics
        self.version = settings.version or version
        self.model = {"name": runtime.spec.name, "version": self.version}
        self.queue = Queue(
            "predict",
            self._predict,
            max_waiting=settings.max_waiting,
            seconds=settings.queue_seconds,
            together=settings.max_batch or 1,
            waited=metrics.stages["wait"].observe,
            length=metrics.queue("predict").set,
        )
        self.explain_queue: Queue[bytes, bytes] = Queue(
            "explain",
            lambda pictures: [self._explain(picture) for picture in pictures],
            max_waiting=MAX_EXPLAIN,
            seconds=settings.queue_seconds,
            waited=metrics.stages["explain_wait"].observe,
            length=metrics.queue("explain").set,
        )
        self.bodies = Budget(settings.held_bytes)
        self.writer = _writer(settings, metrics, runtime.spec.name)
        self.mirror = _mirror(settings, metrics, self.version)
        self.log = log
        if log is not None:
            log.on_lost = metrics.lines_lost.inc
        metrics.tell_model(
            name=runtime.spec.name,
            version=self.version,
            architecture=runtime.spec.architecture,
            fingerprint=runtime.package.fingerprint,
        )
        self.feedback = Feedback(self.writer, runtime.spec, settings, self.bodies, length=metrics.queue("feedback").set)
        about = About(
            runtime, settings, self.model, card=card, tested=tested, guarded=lambda: self.entrance.keys.asked_for
        )
        routes = Starlette(
            routes=[
                Route("/predict", self.predict, methods=["POST"]),  # they are tried in their order
                Route("/predict_batch", self.predict_batch, methods=["POST"]),
                Route("/explain", self.explain, methods=["POST"]),
                Route("/feedback", self.feedback.take, methods=["POST"]),
                Route("/metrics", self.show_metrics),
                Route("/livez", self.livez),
                Route("/readyz", self.readyz),
                *about.routes,
                *pages.Pages(settings.shelf, self.model).routes,
            ],
            exception_handlers={
                Refusal: answer_refusal,
                HTTPException: answer_http_exception,
                ClientDisconnect: answer_nobody,
                Exception: answer_failure,
            },
        )
        routes.router.redirect_slashes = False
        self.entrance = Entrance(routes, settings, metrics, open_paths=OPEN_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.entrance(scope, receive, send)

    async def predict(self, request: Request) -> Response:
        self.queue.refuse_if_full()
        with self.bodies.share(counted_as(request)) as take:
            with self.metrics.stages["read"].time():
                (picture,) = await self._pictures(request, "image", take)
            with self.queue.place():
                (answer,), seconds = await self.queue.run([picture])
            with self.metrics.stages["answer"].time():
                kept = self._is_kept(request)
                told = self._told(self._readable(answer, picture), keep=kept)
                if not kept:
                    return JSONResponse(told, headers=server_timing(seconds))
                return JSONResponse(told, background=self._mirrored([(told, picture)], seconds))

    async def predict_batch(self, request: Request) -> Response:
        self.queue.refuse_if_full()
        with self.bodies.share(counted_as(request)) as take:
            with self.metrics.stages["read"].time():
                pictures = await self._pictures(request, "images", take)
            with self.queue.place():
                answers, seconds = await self._in_turns(request, pictures)
            results: list[dict[str, Any]] = []
            answered: list[tuple[dict[str, Any], bytes]] = []
            with self.metrics.stages["answer"].time():
                kept = self._is_kept(request)
                for answer, picture in zip(answers, pictures, strict=True):
                    try:
                        results.append(self._told(self._readable(answer, picture), keep=kept))
                        answered.append((results[-1], picture))
                    except Refusal as refusal:
                        results.append(refusal.body())
                after = self._mirrored(answered, seconds / len(pictures)) if kept else None
                return JSONResponse({"model": self.model, "results": results}, background=after)

    async def explain(self, request: Request) -> Response:
        self.explain_queue.refuse_if_full()
        with self.bodies.share(counted_as(request)) as take:
            (picture,) = await self._pictures(request, "image", take)
            with self.explain_queue.place():
                png = await self.explain_queue.run(picture)
        return Response(png, media_type="image/png")

    async def show_metrics(self, _: Request) -> Response:
        content, kind = await anyio.to_thread.run_sync(self.metrics.render)
        return Response(content, headers={"content-type": kind})

    async def livez(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        if self.queue.busy_seconds > HUNG_SECONDS * max(1.0, self.queue.together / AT_ONCE):
            raise Refusal(503, "not_ready", "Predictions hang, and are not answered.", retry_after=10)
        parts = degraded(
            self.writer,
            self.mirror.writer if self.mirror is not None else None,
            self.log,
            self.entrance.rate,
            self.metrics,
        )
        return JSONResponse({"status": "ready", "degraded": parts})

    def close(self) -> None:
        """End the threads, and keep what is not yet kept."""
        self.queue.close()
        self.explain_queue.close()
        self.feedback.close()
        if self.mirror is not None:
            self.mirror.close()
        if self.writer is not None:
            self.writer.close()

    async def _pictures(self, request: Request, field: str, take: Take) -> list[bytes]:
        settings = self.settings
        several = field == "images"
        return await read_pictures(
            request,
            field,
            take,
            max_bytes=settings.max_upload_bytes,
            max_body_bytes=settings.max_batch_bytes if several else settings.max_body_bytes,
            max_pictures=settings.max_pictures if several else 1,
            seconds=settings.upload_seconds,
        )

    async def _in_turns(self, request: Request, pictures: list[bytes]) -> tuple[list[Prediction | Unreadable], float]:
        """Predict a batch a few pictures at a time, between which others have their turn; and say how long it took.

        Raises ClientDisconnect where nobody waits for the rest.
        """
        answers: list[Prediction | Unreadable] = []
        seconds = 0.0
        for start in range(0, len(pictures), AT_ONCE):
            if start and await request.is_disconnected():
                raise ClientDisconnect
            few = pictures[start : start + AT_ONCE]
            answered, took = await self.queue.run(few, size=len(few))
            answers += answered
            seconds += took
        return answers, seconds

    def _predict(self, asked: list[list[bytes]]) -> list[tuple[list[Prediction | Unreadable], float]]:
        """Predict the pictures of each request, and say how many seconds of one core its share took."""
        settings, begun = self.settings, time.thread_time()
        answers = self.runtime.predict(
            [picture for pictures in asked for picture in pictures],
            top_k=settings.top_k,
            max_pixels=settings.max_pixels,
            observe=self.metrics.ran,
        )
        each = (time.thread_time() - begun) / len(answers)
        rest = iter(answers)
        return [(list(islice(rest, len(pictures))), each * len(pictures)) for pictures in asked]

    def _mirrored(self, answered: Sequence[tuple[dict[str, Any], bytes]], seconds: float) -> BackgroundTask | None:
        """Return what lets a shadow see pictures that have been answered, each in so many seconds, if there is one."""
        if self.mirror is None:
            return None
        now = datetime.now(UTC)
        return self.mirror.after([Asked(picture, told["prediction_id"], now, seconds) for told, picture in answered])

    def _readable(self, answer: Prediction | Unreadable, picture: bytes) -> Prediction:
        if isinstance(answer, Prediction):
            return answer
        raise self._refused(answer, picture)

    def _refused(self, answer: Unreadable, picture: bytes) -> Refusal:
        refusal = refusal_of_picture(answer, picture)
        self.metrics.unreadable.labels(refusal.code).inc()
        return refusal

    def _is_kept(self, request: Request) -> bool:
        """Tell whether a request counts: a probe's does not, and who has no key of ours is none."""
        return PROBE_HEADER not in request.headers or not self.entrance.keys.are_own(request.headers)

    def _told(self, prediction: Prediction, *, keep: bool) -> dict[str, Any]:
        prediction_id = uuid.uuid4().hex
        if keep:
            self.metrics.predictions.labels(self.version, prediction.label).inc()
        if keep and prediction.rejected:
            self.metrics.rejected.labels(self.version).inc()
        if keep and self.writer is not None:
            now = datetime.now(UTC)
            self.writer.put(prediction_row(prediction, prediction_id=prediction_id, time=now, model=self.model["name"],
                                           version=self.version))  # fmt: skip
        return {
            "prediction_id": prediction_id,
            "model": self.model,
            "predictions": [{"label": label, "probability": probability} for label, probability in prediction.top],
            "rejected": prediction.rejected,
            "reason": prediction.reason,
        }

    def _explain(self, picture: bytes) -> bytes:
        with self.metrics.stages["explain"].time():
            try:
                rgb = transforms.decode(picture, max_pixels=self.settings.max_pixels)
            except transforms.UnreadablePicture as error:
                raise self._refused(Unreadable(error.code, str(error)), picture) from error
            small = fit_within(rgb, EXPLAIN_SIDE)
            return overlay(small, heat_map(self.runtime, small))


def _writer(settings: ServingSettings, metrics: Metrics, model: str) -> PredictionWriter | None:
    if settings.predictions is None:
        return None
    store, keep = PredictionStore(settings.predictions), timedelta(days=settings.keep_days)
    return PredictionWriter(
        store, prune=lambda: store.prune(datetime.now(UTC) - keep, model=model), on_lost=metrics.lost.inc
    )


def _mirror(settings: ServingSettings, metrics: Metrics, version: str) -> Mirror | None:
    if settings.shadow is None or settings.predictions is None:
        return None
    return Mirror(settings.shadow, PredictionStore(settings.predictions), metrics, version=version)
