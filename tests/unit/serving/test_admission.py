"""Work is refused before it is begun rather than piled up, and what waits anyhow is done together."""

import asyncio
import logging
import threading
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from imago.serving import request_id
from imago.serving.admission import Budget, Queue
from imago.serving.refusal import Refusal


class Work:
    """Answers a number with ten times as much, and notes what it was given; it waits at `gate`, and fails at `bad`."""

    def __init__(self, bad: int | None = None) -> None:
        self.gate, self.bad = threading.Event(), bad
        self.begun: list[list[int]] = []
        self.ids: list[str] = []

    def __call__(self, numbers: list[int]) -> list[int]:
        self.begun.append(numbers)
        self.ids.append(request_id.current.get())
        assert self.gate.wait(10)
        if self.bad in numbers:
            raise MemoryError(f"{self.bad} is too much")
        return [10 * number for number in numbers]


@contextmanager
def queue_of(work: Work, **options: Any) -> Iterator[Queue[int, int]]:
    queue = Queue("test", work, **{"max_waiting": 99, "seconds": 10.0, **options})
    try:
        yield queue
    finally:
        work.gate.set()
        queue.close()


def begin(queue: Queue[int, int], *numbers: int, size: int = 1) -> "list[asyncio.Task[int]]":
    return [asyncio.ensure_future(queue.run(number, size)) for number in numbers]


async def all_wait() -> None:
    """Let every task that has begun come to where it waits."""
    await asyncio.sleep(0)


def answers(queue: Queue[int, int], work: Work, count: int) -> list[int]:
    """Ask with the first number, let it hold the thread, then with the others: what each is answered."""

    async def scene() -> list[int]:
        first = begin(queue, 0)
        await all_wait()
        others = begin(queue, *range(1, count))
        await all_wait()
        work.gate.set()
        return await asyncio.gather(*first, *others)

    return asyncio.run(scene())


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_places_are_given_back_also_after_a_failure() -> None:
    with queue_of(Work(), max_waiting=1) as queue:
        with pytest.raises(ValueError, match="mine"), queue.place():
            raise ValueError("mine")
        with queue.place(), pytest.raises(Refusal, match="waiting") as refused, queue.place():
            pass
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        assert queue.waiting == 0


def test_whether_a_place_is_free_is_told_and_takes_none() -> None:
    lengths: list[int] = []
    with queue_of(Work(), max_waiting=1, length=lengths.append) as queue:
        queue.refuse_if_full()
        with queue.place(), pytest.raises(Refusal, match="waiting"):
            queue.refuse_if_full()
        queue.refuse_if_full()
    assert lengths == [1, 0]


def test_work_is_done_one_after_the_other_unless_told() -> None:
    work = Work()
    with queue_of(work) as queue:
        assert answers(queue, work, 6) == [0, 10, 20, 30, 40, 50]
    assert work.begun == [[0], [1], [2], [3], [4], [5]]


def test_what_waits_is_done_together_and_what_comes_first_waits_for_nothing() -> None:
    work = Work()
    with queue_of(work, together=4) as queue:
        assert answers(queue, work, 8) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert work.begun == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_what_is_larger_than_fits_is_done_alone_and_nobody_is_overtaken() -> None:
    work = Work()

    async def scene() -> None:
        tasks = begin(queue, 0)
        await all_wait()
        tasks += [*begin(queue, 1), *begin(queue, 2, size=3), *begin(queue, 3, size=9), *begin(queue, 4, 5)]
        await all_wait()
        work.gate.set()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]

    with queue_of(work, together=4) as queue:
        run(scene())
    assert work.begun == [[0], [1, 2], [3], [4, 5]]


def test_a_failure_is_told_to_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(bad=2)

    async def scene() -> None:
        tasks = begin(queue, 0)
        await all_wait()
        tasks += begin(queue, 1, 2, 3, 4)
        await all_wait()
        work.gate.set()
        zero, one, two, three, four = await asyncio.gather(*tasks, return_exceptions=True)
        assert (zero, one, three, four) == (0, 10, 30, 40)
        assert isinstance(two, MemoryError)
        assert await queue.run(5) == 50

    with queue_of(work, together=4) as queue, caplog.at_level(logging.WARNING):
        run(scene())
    assert work.begun == [[0], [1, 2, 3, 4], [1], [2], [3], [4], [5]]
    assert "4 requests failed together" in caplog.text


def test_who_waits_too_long_is_told_so_and_the_work_goes_on() -> None:
    work = Work()

    async def scene() -> None:
        (slow,) = begin(queue, 1)
        await all_wait()
        with pytest.raises(Refusal, match="waiting") as refused:
            await queue.run(2)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        work.gate.set()
        assert await slow == 10

    with queue_of(work, seconds=0.05, together=4) as queue:
        run(scene())
    assert work.begun == [[1]]


def test_what_nobody_waits_for_is_let_go_at_once() -> None:
    work = Work()

    class Picture:
        pass

    async def scene() -> None:
        (slow,) = begin(queue, 1)
        await all_wait()
        pictures = Picture(), Picture()
        seen = [weakref.ref(one) for one in pictures]
        waiting = [asyncio.ensure_future(queue.run(one)) for one in pictures]  # type: ignore[arg-type]
        del pictures
        await all_wait()
        waiting[0].cancel()
        await asyncio.wait(waiting)
        assert isinstance(waiting[1].exception(), Refusal)
        del waiting
        assert [one() for one in seen] == [None, None]  # while the thread is at the first one still
        work.gate.set()
        assert await slow == 10

    with queue_of(work, seconds=0.05) as queue:
        run(scene())


def test_for_how_long_the_thread_is_at_one_turn_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    work, now = Work(), [100.0]
    monkeypatch.setattr("imago.serving.admission.time", SimpleNamespace(monotonic=lambda: now[0]))

    async def scene() -> None:
        assert queue.busy_seconds == 0
        tasks = begin(queue, 1, 2)
        await all_wait()
        now[0] += 61
        assert queue.busy_seconds == 61
        work.gate.set()
        assert await tasks[0] == 10
        assert queue.busy_seconds == 0  # that of the second
        assert await tasks[1] == 20
        assert queue.busy_seconds == 0

    with queue_of(work) as queue:
        run(scene())


def test_bytes_are_bounded_together_and_given_back_with_their_request() -> None:
    budget = Budget(100)
    with ExitStack() as others:
        for client in ("anna", "berta", "clara"):
            others.enter_context(budget.share(client))(25)
        with budget.share("dora") as one:
            one(20)
            one(5)
            with budget.share("elsa") as other, pytest.raises(Refusal, match="waiting") as refused:
                other(1)
            assert budget.held == 100
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "overloaded", 1)
        assert budget.held == 75
    assert budget.held == 0


def test_who_sends_much_and_slowly_leaves_room_for_others() -> None:
    budget = Budget(100)
    with ExitStack() as slow:
        for _ in range(5):
            slow.enter_context(budget.share("anna"))(10)
        with budget.share("anna") as more, pytest.raises(Refusal):
            more(10)
        with budget.share("berta") as other:
            other(25)
            with pytest.raises(Refusal):
                other(1)
        with budget.share("clara") as last:
            last(25)
    assert (budget.held, dict(budget.clients)) == (0, {})


def test_who_is_alone_may_hold_half() -> None:
    budget = Budget(100)
    with budget.share("anna") as one, budget.share("anna") as other:
        one(30)
        other(20)
        with pytest.raises(Refusal):
            other(1)


def test_work_of_a_client_that_left_holds_its_turn_until_it_is_done() -> None:
    work = Work()

    async def scene() -> None:
        (gone,) = begin(queue, 1)
        await all_wait()
        gone.cancel()
        with pytest.raises(Refusal):
            await queue.run(2)
        work.gate.set()
        queue.seconds = 5
        assert await queue.run(3) == 30

    with queue_of(work, seconds=0.05) as queue:
        run(scene())
    assert work.begun == [[1], [3]]


def test_who_left_while_waiting_takes_no_place_in_a_batch_and_who_left_in_one_takes_nobody_along() -> None:
    work, second = Work(), Work()

    def each_at_its_gate(numbers: list[int]) -> list[int]:
        return (work if 0 in numbers else second)(numbers)

    async def scene() -> None:
        tasks = begin(queue, 0)
        await all_wait()
        tasks += begin(queue, 1, 2, 3, 4, 5)
        await all_wait()
        tasks[2].cancel()
        work.gate.set()
        assert await tasks[0] == 0
        tasks[3].cancel()
        second.gate.set()
        assert [await tasks[number] for number in (1, 4, 5)] == [10, 40, 50]
        assert tasks[2].cancelled()
        assert tasks[3].cancelled()

    queue: Queue[int, int] = Queue("test", each_at_its_gate, max_waiting=9, seconds=10, together=4)
    run(scene())
    queue.close()
    assert second.begun == [[1, 3, 4, 5]]


def test_the_thread_logs_the_id_of_a_request_and_of_several_none() -> None:
    work = Work()

    async def named(name: str, number: int) -> int:
        request_id.current.set(name)
        return await queue.run(number)

    async def scene() -> None:
        tasks = [asyncio.ensure_future(named("a", 0))]
        await all_wait()
        tasks += [asyncio.ensure_future(named(name, number)) for number, name in enumerate("bcdef", start=1)]
        await all_wait()
        work.gate.set()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]

    with queue_of(work, together=4) as queue:
        run(scene())
    assert list(zip(work.begun, work.ids, strict=True)) == [([0], "a"), ([1, 2, 3, 4], ""), ([5], "f")]


def test_how_long_each_has_waited_is_told() -> None:
    work, waited = Work(), list[float]()
    with queue_of(work, together=4, waited=waited.append) as queue:
        assert answers(queue, work, 5) == [0, 10, 20, 30, 40]
    assert len(waited) == 5
    assert all(0 <= seconds < 10 for seconds in waited)


def test_what_is_under_way_when_it_is_closed_is_answered() -> None:
    work = Work()

    async def scene() -> None:
        (task,) = begin(queue, 1)
        await all_wait()
        queue.close()
        work.gate.set()
        assert await task == 10

    with queue_of(work) as queue:
        run(scene())
