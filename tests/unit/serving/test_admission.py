"""Work is refused before it is begun rather than piled up."""

import asyncio
import threading

import pytest

from imago.serving.admission import Queue
from imago.serving.refusal import Refusal


def test_places_are_given_back_also_after_a_failure() -> None:
    queue = Queue("test", max_waiting=1, seconds=1)
    with pytest.raises(ValueError, match="mine"), queue.place():
        raise ValueError("mine")
    with queue.place(), pytest.raises(Refusal, match="waiting") as refused, queue.place():
        pass
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    assert queue.waiting == 0


def test_work_is_done_one_after_the_other() -> None:
    queue = Queue("test", max_waiting=9, seconds=5)
    running: list[int] = []
    most = 0

    def work(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        running.remove(number)
        return number

    async def all_at_once() -> list[int]:
        return list(await asyncio.gather(*(queue.run(work, number) for number in range(8))))

    assert asyncio.run(all_at_once()) == list(range(8))
    assert most == 1
    queue.close()


def test_who_waits_too_long_is_told_so_and_the_work_goes_on() -> None:
    queue = Queue("test", max_waiting=9, seconds=0.05)
    release = threading.Event()

    async def scene() -> bool:
        slow = asyncio.ensure_future(queue.run(release.wait, 10))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="waiting"):
            await queue.run(lambda: None)
        release.set()
        return await slow

    assert asyncio.run(scene())
    queue.close()


def test_work_of_a_client_that_left_holds_its_turn_until_it_is_done() -> None:
    queue = Queue("test", max_waiting=9, seconds=0.05)
    release = threading.Event()

    async def scene() -> str:
        gone = asyncio.ensure_future(queue.run(release.wait, 10))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(Refusal):
            await queue.run(lambda: "too early")
        release.set()
        queue.seconds = 5
        return await queue.run(lambda: "now")

    assert asyncio.run(scene()) == "now"
    queue.close()
