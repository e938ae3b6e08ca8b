"""Who may ask, how often, and how many at once: work is refused before it is begun rather than piled up."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from imago.serving.refusal import Refusal

P = ParamSpec("P")
T = TypeVar("T")

MAX_CLIENTS = 10_000


class Queue:
    """A bounded number of requests under way, whose work is done by one thread, one after the other."""

    def __init__(self, name: str, *, max_waiting: int, seconds: float) -> None:
        self.max_waiting = max_waiting
        self.seconds = seconds
        self.waiting = 0
        self._turn = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request, from before its body is read. Raises Refusal where all are taken."""
        if self.waiting >= self.max_waiting:
            raise _overloaded()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work in the thread when its turn comes. Raises Refusal where that takes too long."""
        try:
            await asyncio.wait_for(self._turn.acquire(), self.seconds)
        except TimeoutError as error:
            raise _overloaded() from error
        context = copy_context()  # the thread's log lines are this request's
        future = asyncio.get_running_loop().run_in_executor(self._thread, lambda: context.run(work, *args, **kwargs))
        future.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(future)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class RateLimit:
    """A bucket of tokens for each client, so many a second, twice as many at once; none where the rate is 0."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self.burst = max(1.0, 2 * rate)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Take a token of a client's. Raises Refusal where none is left."""
        if not self.rate:
            return
        now = self._clock()
        tokens, then = self._buckets.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = max(1, math.ceil((1 - tokens) / self.rate))
            message = f"Too many requests: {self.rate:g} a second are answered. Ask again in {wait} s."
            raise Refusal(429, "too_many_requests", message, retry_after=wait)


def _overloaded() -> Refusal:
    return Refusal(503, "overloaded", "Too many requests are waiting. Ask again in a second.", retry_after=1)
