"""So many requests a second of a client, whichever worker is asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from imago.home import ROOT
from imago.serving.rate_limit import CLIENTS, RateLimit
from imago.serving.refusal import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answered(limit: RateLimit, client: str) -> bool:
    try:
        limit.check(client)
    except Refusal:
        return False
    return True


def test_a_client_gets_its_rate_and_a_burst() -> None:
    clock = Clock()
    limit = RateLimit(2.0, clock)
    for _ in range(4):
        limit.check("here")
    with pytest.raises(Refusal) as refused:
        limit.check("here")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    limit.check("there")
    clock.now += 0.5
    limit.check("here")
    assert not answered(limit, "here")


def test_who_was_refused_is_told_when_to_come_back_and_is_answered_then() -> None:
    clock = Clock()
    limit = RateLimit(0.1, clock)
    limit.check("here")
    with pytest.raises(Refusal, match=r"0\.1 a second are answered\. Ask again in 10 s\.") as refused:
        limit.check("here")
    clock.now += (refused.value.retry_after or 0) - 1
    assert not answered(limit, "here")
    clock.now += 1
    assert answered(limit, "here")


def test_what_was_counted_before_the_machine_began_anew_holds_nobody_up(tmp_path: Path) -> None:
    before, after = Clock(), Clock()
    before.now = 1e6
    old = RateLimit(2.0, before, tmp_path / "rates")
    while answered(old, "here"):
        pass
    limit = RateLimit(2.0, after, tmp_path / "rates")
    assert [answered(limit, "here") for _ in range(5)] == [True] * 4 + [False]


def test_no_rate_is_no_limit() -> None:
    limit = RateLimit(0.0, Clock())
    assert all(answered(limit, "here") for _ in range(1000))


def test_workers_count_together(tmp_path: Path) -> None:
    clock = Clock()
    one, other = (RateLimit(2.0, clock, tmp_path / "rates") for _ in range(2))
    answers = [answered(limit, "here") for _ in range(4) for limit in (one, other)]
    assert answers == [True] * 4 + [False] * 4
    clock.now += 0.5
    assert [answered(one, "here"), answered(other, "here"), answered(other, "there")] == [True, False, True]
    assert one.shared
    assert other.shared


ASK = """
import sys, time
from pathlib import Path
from imago.serving.rate_limit import RateLimit
from imago.serving.refusal import Refusal

limit = RateLimit(0.5, time.monotonic, Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
answers = 0
for _ in range(2000):
    try:
        limit.check("here")
        answers += 1
    except Refusal:
        pass
print(answers, limit.shared)
"""


def test_processes_that_count_at_the_same_time_answer_no_more_than_one_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(tmp_path / "rates")]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("now\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [shared for _, shared in said] == ["True"] * 3
    assert 1 <= sum(int(answers) for answers, _ in said) <= 12  # 1 at once, and one more in 2 s: it takes under 20


def test_clients_without_number_take_no_more_room_and_let_nobody_ask_more_often() -> None:
    limit = RateLimit(0.001, Clock())
    room = len(limit._table)
    assert answered(limit, "here")
    assert all(answered(limit, f"client {number}") for number in range(CLIENTS // 4))
    assert not answered(limit, "here")
    assert all(answered(limit, f"other {number}") for number in range(2 * CLIENTS))
    assert len(limit._table) == room


@pytest.mark.parametrize("kind", ["a folder", "a full disk"])
def test_where_the_file_cannot_be_used_each_worker_counts_for_itself_and_says_so(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = RateLimit(1.0, Clock(), tmp_path if kind == "a folder" else Path("/dev/full"))
    assert [answered(limit, "here") for _ in range(3)] == [True, True, False]
    assert not limit.shared
    assert "Each counts for itself" in caplog.text
