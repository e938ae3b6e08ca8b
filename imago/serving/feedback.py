"""Takes from clients what a picture really shows, and keeps it with the prediction."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imago.errors import ImagoError, did_you_mean
from imago.monitoring.prediction_writer import PredictionWriter
from imago.serving.admission import Budget, Queue
from imago.serving.entrance import counted_as
from imago.serving.package import ModelSpec
from imago.serving.refusal import Refusal
from imago.serving.settings import ServingSettings
from imago.serving.upload import read_json

logger = logging.getLogger("imago.endpoint")

MAX_WAITING = 32  # requests: one that names no known prediction is under way for two of the writer's intervals
_ID = re.compile(r"[0-9a-f]{32}")


class Feedback:
    """Feedback on the predictions of one model, written by a thread of its own; without a `writer` none is taken.

    `length` is told how many requests are under way.
    """

    def __init__(
        self,
        writer: PredictionWriter | None,
        spec: ModelSpec,
        settings: ServingSettings,
        bodies: Budget,
        *,
        length: Callable[[int], object],
    ) -> None:
        self.writer = writer
        self.model = spec.name
        self.classes = spec.classes
        self.settings = settings
        self.bodies = bodies
        self.queue: Queue[Callable[[], bool], bool] = Queue(
            "feedback",
            lambda asked: [keep() for keep in asked],
            max_waiting=MAX_WAITING,
            seconds=settings.queue_seconds,
            length=length,
        )

    async def take(self, request: Request) -> Response:
        """Answer `POST /feedback`."""
        self.queue.refuse_if_full()
        with self.bodies.share(counted_as(request)) as take:
            body = await read_json(request, take, seconds=self.settings.upload_seconds)
        prediction_id, label = body.get("prediction_id"), body.get("label")
        if not isinstance(prediction_id, str) or not isinstance(label, str):
            raise Refusal(400, "malformed", 'The body must be {"prediction_id": "…", "label": "…"}.')
        if label not in self.classes:
            hint = did_you_mean(label[:80], self.classes)
            raise Refusal(400, "unknown_label", f"'{label[:80]}' is not one of the {len(self.classes)} classes.{hint}")
        if self.writer is None:
            raise Refusal(404, "not_kept", "This endpoint keeps no predictions, so it takes no feedback.")
        with self.queue.place():
            known = _ID.fullmatch(prediction_id) and await self._keep(self.writer, prediction_id, label)
        if not known:
            raise Refusal(404, "unknown_prediction", f"No prediction '{prediction_id[:80]}' is known.")
        return JSONResponse({"prediction_id": prediction_id, "label": label})

    def close(self) -> None:
        """End the thread."""
        self.queue.close()

    async def _keep(self, writer: PredictionWriter, prediction_id: str, label: str) -> bool:
        """Keep a label; False where its prediction is not known, also once another worker must have written it."""
        deadline = time.monotonic() + 2 * writer.interval
        while not await self.queue.run(partial(self._keep_now, writer, prediction_id, label)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(writer.interval / 2)
        return True

    def _keep_now(self, writer: PredictionWriter, prediction_id: str, label: str) -> bool:
        whole = writer.flush()
        try:
            known = writer.store.feedback(prediction_id, label, model=self.model)
            if not known and not whole:  # its prediction may be one of those that could not be written
                raise ImagoError(f"Predictions wait to be written to {writer.store.path}.")
        except ImagoError as error:
            logger.error("%s", error)
            raise Refusal(503, "not_kept", "Feedback cannot be kept just now.", retry_after=10) from error
        return known
