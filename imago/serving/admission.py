"""How many requests are under way at once: work is refused before it is begun rather than piled up."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from imago.serving.refusal import Refusal

P = ParamSpec("P")
T = TypeVar("T")


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


def _overloaded() -> Refusal:
    return Refusal(503, "overloaded", "Too many requests are waiting. Ask again in a second.", retry_after=1)
