"""How much is under way at once: work, and the bytes for it, are refused before they pile up."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from imago.serving.refusal import Refusal

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("imago.endpoint")


@dataclass(eq=False)
class _Turn(Generic[T, R]):
    item: T
    size: int
    answer: asyncio.Future[R]
    asked: float  # by the monotonic clock
    too_late: asyncio.TimerHandle
    context: Context  # the thread's log lines are this request's


class Queue(Generic[T, R]):
    """A bounded number of requests under way, whose work one thread does in their order.

    `work` is given what waits when the thread is free, up to a size of `together` in all, and answers each in its
    order. Nothing waits for more to come. `waited` is told the seconds that each has waited, `length` how many requests
    are under way whenever that changes.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], Sequence[R]],
        *,
        max_waiting: int,
        seconds: float,
        together: int = 1,
        waited: Callable[[float], object] = lambda _: None,
        length: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.max_waiting = max_waiting
        self.seconds = seconds
        self.together = together
        self.waiting = 0
        self._work = work
        self._waited = waited
        self._length = length
        self._turns: deque[_Turn[T, R]] = deque()
        self._begun: float | None = None  # when the thread began what it is at, by the monotonic clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    @property
    def busy_seconds(self) -> float:
        """For how long the thread has been at what it does now; 0 where it does nothing."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def refuse_if_full(self) -> None:
        """Raise Refusal where a whole request would find no place at this moment: its body need not be read."""
        if self.waiting >= self.max_waiting:
            raise _overloaded()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request that has been read whole. Raises Refusal where all are taken."""
        self.refuse_if_full()
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def run(self, item: T, size: int = 1) -> R:
        """Let the work be done when its turn comes. Raises Refusal where that takes too long."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        too_late = loop.call_later(self.seconds, _give_up, answer)
        turn = _Turn(item, size, answer, time.monotonic(), too_late, copy_context())
        self._turns.append(turn)
        if self._begun is None:
            self._begin(loop)
        try:
            return await answer
        finally:
            too_late.cancel()
            if turn in self._turns:  # else its pictures would be held until the thread is free
                self._turns.remove(turn)
            del answer, turn  # a failure holds this frame, and the future the failure: a ring around the pictures

    def close(self) -> None:
        """End the thread once it has done what it is at."""
        self._thread.shutdown(wait=False)

    def _count(self, more: int) -> None:
        self.waiting += more
        self._length(self.waiting)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread what waits, if anything does."""
        turns = self._next()
        self._begun = time.monotonic() if turns else None
        if not turns:
            return
        context = turns[0].context if len(turns) == 1 else Context()
        done = loop.run_in_executor(self._thread, context.run, self._work, [turn.item for turn in turns])
        done.add_done_callback(partial(self._end, loop, turns))
        for turn in turns:
            turn.too_late.cancel()
            self._waited(time.monotonic() - turn.asked)

    def _next(self) -> list[_Turn[T, R]]:
        turns: list[_Turn[T, R]] = []
        size = 0
        while self._turns and (not turns or size + self._turns[0].size <= self.together):
            turn = self._turns.popleft()
            if not turn.answer.done():  # else its client has left, or was told that this takes too long
                turns.append(turn)
                size += turn.size
        return turns

    def _end(
        self, loop: asyncio.AbstractEventLoop, turns: list[_Turn[T, R]], done: asyncio.Future[Sequence[R]]
    ) -> None:
        error = done.exception()
        if error is not None and len(turns) > 1:
            logger.warning("%d requests failed together, so each is tried by itself: %r", len(turns), error)
            for turn in reversed(turns):
                turn.size = self.together
                self._turns.appendleft(turn)
        elif error is not None:
            if not turns[0].answer.done():
                turns[0].answer.set_exception(error)
        else:
            for turn, answer in zip(turns, done.result(), strict=True):
                if not turn.answer.done():
                    turn.answer.set_result(answer)
        self._begin(loop)


class Budget:
    """A number of bytes that the bodies of all requests under way may have together.

    The last half of it is for clients that hold less than a quarter, so that one that sends much, and slowly, keeps
    nobody else out.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.clients: Counter[str] = Counter()

    @contextmanager
    def share(self, client: str) -> Iterator[Callable[[int], None]]:
        """Give what takes so many bytes more for a client's request; at its end all that it took is free again.

        What is given raises Refusal where they are not to be had.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            most = self.most if self.clients[client] + size <= self.most // 4 else self.most // 2
            if self.held + size > most:
                raise _overloaded()
            self.held += size
            self.clients[client] += size
            taken += size

        try:
            yield take
        finally:
            self.held -= taken
            self.clients[client] -= taken
            if not self.clients[client]:
                del self.clients[client]


def _give_up(answer: asyncio.Future[R]) -> None:
    if not answer.done():
        answer.set_exception(_overloaded())


def _overloaded() -> Refusal:
    return Refusal(503, "overloaded", "Too many requests are waiting. Ask again in a second.", retry_after=1)
