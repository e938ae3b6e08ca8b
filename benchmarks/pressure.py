"""The endpoint at four fifths of what it can do, at twice as much, for minutes, and while its version changes."""

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from benchmarks import Figure
from benchmarks.apart import beside
from benchmarks.load import HOST
from benchmarks.served import Server

LATE_SECONDS = 60.0  # after which a request that is not answered is lost
LOST = 0  # in place of a status


@dataclass(frozen=True)
class Answer:
    """What became of a request: when it was sent and answered, in seconds, by whom and how."""

    sent: float
    answered: float
    status: int
    version: str = ""

    @property
    def took(self) -> float:
        return self.answered - self.sent


@dataclass
class Live:
    """A version, and when it may have answered: from the beginning of its deployment to the end of the next."""

    version: str
    since: float
    until: float = float("inf")

    def may_have_given(self, answer: Answer) -> bool:
        return answer.version == self.version and answer.sent <= self.until and answer.answered >= self.since


@dataclass(frozen=True)
class Pressure:
    """How hard an endpoint is pressed, and for how long."""

    clients: int = 16
    seconds: float = 30.0  # at each rate
    minutes: float = 5.0
    crowd: int = 64  # clients that ask for all of these minutes


def latency(server: Server, messages: Sequence[bytes], how: Pressure) -> Iterator[Figure]:
    """Ask at random moments, four fifths as often as it can answer, then twice as often, then hardly.

    How often it can is asked by the same client, who takes a part of this machine as well. Of three spells the one
    counts whose ratio is between the others': where other work takes the machine for a moment, the queue is long.
    """
    busy = crowd(server.port, messages, clients=how.clients, seconds=how.seconds / 3)
    _require(busy, {200})
    rate = len(busy) / (how.seconds / 3)
    spells = [rain(server.port, messages, rate=0.8 * rate, seconds=how.seconds / 3) for _ in range(3)]
    calm = sorted(spells, key=lambda spell: _percentile(spell, 99) / _percentile(spell, 50))[1]
    _require([answer for spell in spells for answer in spell], {200})
    yield beside("serving.p99_at_four_fifths", _percentile(calm, 99), _percentile(calm, 50), "seconds, p99 and median")
    heavy = rain(server.port, messages, rate=2 * rate, seconds=how.seconds)
    _require(heavy, {200, 503})
    admitted = [answer for answer in heavy if answer.status == 200]
    yield beside("serving.p99_at_twice", _percentile(admitted, 99), _percentile(calm, 50), "seconds, p99 and median")
    yield beside("serving.answered_at_twice", len(admitted) / how.seconds, rate, "requests a second", "higher")
    after = rain(server.port, messages, rate=max(1.0, 0.2 * rate), seconds=4)
    _require([answer for answer in after if answer.sent > after[0].sent + 2], {200})
    recovered = [answer for answer in after if answer.sent > after[0].sent + 2]
    yield beside("serving.median_2_s_after", _percentile(recovered, 50), _percentile(calm, 50), "seconds, median")


def endurance(server: Server, messages: Sequence[bytes], how: Pressure) -> Iterator[Figure]:
    """Ask by a crowd for minutes, and compare the workers' memory in the last of them with that in the second."""
    memory: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(how.minutes * 60 / 10):
            memory.append(server.resident_in_all())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = crowd(server.port, messages, clients=how.crowd, seconds=60 * how.minutes)
    finally:
        done.set()
        watcher.join()
    _require(answers, {200})
    early, late = (float(np.mean(memory[part])) for part in (slice(2, 4), slice(-2, None)))
    yield beside("serving.memory_in_the_last_minute", late, early, "MB")


def changes(
    port: int, messages: Sequence[bytes], how: Pressure, steps: Sequence[tuple[str, Callable[[], str]]]
) -> Iterator[Figure]:
    """Ask while each step, a deploy or a rollback, changes the version; raise where a request is lost.

    An answer must name a version that was live while it was under way.
    """
    took: dict[str, list[float]] = defaultdict(list)
    answers: list[Answer] = []
    done = threading.Event()
    asking = threading.Thread(target=lambda: answers.extend(crowd(port, messages, clients=how.clients, until=done)))
    asking.start()
    live = [Live(asyncio.run(_asked(port, messages[0], [])).version, since=0.0)]
    try:
        for name, step in steps:
            begun = time.monotonic()
            version = step()
            live[-1].until = time.monotonic()
            live.append(Live(version, begun))
            took[name].append(live[-2].until - begun)
    finally:
        done.set()
        asking.join()
    _require(answers, {200})
    for answer in answers:
        if not any(one.may_have_given(answer) for one in live):
            raise RuntimeError(
                f"version {answer.version} answered at {answer.answered:.2f}, and these were live: {live}"
            )
    unit = f"lost, of all that were asked in {len(live) - 1} changes"
    yield Figure("serving.lost_in_changes", 0.0, "lower", 0.0, float(len(answers)), unit)
    yield beside("serving.rollback", max(took["rollback"]), float(np.mean(took["deploy"])), "seconds, the longest")


def rain(port: int, messages: Sequence[bytes], *, rate: float, seconds: float) -> list[Answer]:
    """Send requests at random moments, so many a second whatever becomes of those before: a Poisson process."""
    drops = random.Random(0)

    async def fall() -> list[Answer]:
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        tasks = []
        begun = time.monotonic()
        due = begun
        number = 0
        while (due := due + drops.expovariate(rate)) < begun + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(_asked(port, messages[number % len(messages)], idle)))
            number += 1
        answers = list(await asyncio.gather(*tasks))
        for _, writer in idle:
            writer.close()
        return answers

    return asyncio.run(fall())


def crowd(
    port: int,
    messages: Sequence[bytes],
    *,
    clients: int,
    seconds: float = float("inf"),
    until: threading.Event | None = None,
) -> list[Answer]:
    """Send by so many clients, each its next request once the one before is answered, for a time or until told."""
    answers: list[Answer] = []
    begun = time.monotonic()

    async def client(number: int) -> None:
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while time.monotonic() < begun + seconds and not (until and until.is_set()):
            answers.append(await _asked(port, messages[number % len(messages)], idle))
            number += 1
        for _, writer in idle:
            writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    asyncio.run(all_of_them())
    return answers


async def _asked(port: int, message: bytes, idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> Answer:
    """Send a request once, on an idle connection that the server has not closed meanwhile, or on a new one."""
    sent = time.monotonic()
    while idle and idle[-1][0].at_eof():
        idle.pop()[1].close()
    try:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(HOST, port)
    except OSError:
        return Answer(sent, time.monotonic(), LOST)
    try:
        status, version, stays = await asyncio.wait_for(_exchange(reader, writer, message), LATE_SECONDS)
    except (OSError, EOFError, TimeoutError):
        writer.close()
        return Answer(sent, time.monotonic(), LOST)
    if stays:
        idle.append((reader, writer))
    else:
        writer.close()
    return Answer(sent, time.monotonic(), status, version)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
) -> tuple[int, str, bool]:
    writer.write(message)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    status, version = int(head.split(b" ", 2)[1]), ""
    with suppress(ValueError, LookupError, TypeError):
        version = str(json.loads(body)["model"]["version"])
    return status, version, b"connection: close" not in head


def _percentile(answers: Sequence[Answer], share: int) -> float:
    return float(np.percentile([answer.took for answer in answers], share))


def _require(answers: Sequence[Answer], statuses: set[int]) -> None:
    found = Counter(answer.status for answer in answers)
    if not answers or set(found) - statuses:
        raise RuntimeError(f"answers by status, 0 for none at all: {dict(found)}; {sorted(statuses)} were expected")
