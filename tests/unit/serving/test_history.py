"""What became of each version, read from what happened to its deployment."""

import pytest

from imago.config import DeployConfig
from imago.serving.deployment import HISTORY, LONGEST, Event, State, Version
from imago.serving.history import entries, with_end, with_recoveries


def happened(*events: tuple[str, str]) -> list[Event]:
    return [
        Event(time=f"2026-01-01T00:00:0{second}+00:00", action=action, tag=tag)
        for second, (action, tag) in enumerate(events)
    ]


def test_the_version_that_began_last_serves():
    (entry,) = entries(happened(("deployed", "moths:3-0123abcd")))
    assert (entry.version, entry.outcome, entry.until) == ("3", "serving", None)


@pytest.mark.parametrize(
    ("event", "outcome", "ending"),
    [
        (("deployed", "moths:2"), "replaced", "by moths:2"),
        (("started", "moths:1"), "replaced", "by moths:1"),
        (("rolled back", "moths:0"), "rolled back", "to moths:0"),
        (("stopped", "moths:1"), "stopped", ""),
        (("gave way", "moths:1"), "gave way", ""),
        (("ended", "moths:1"), "failed", ""),
    ],
)
def test_what_happened_next_is_how_a_version_ended(event, outcome, ending):
    first, _ = entries(happened(("deployed", "moths:1"), event))
    assert (first.outcome, first.until, first.ending) == (outcome, "2026-01-01T00:00:01+00:00", ending)


def test_a_lost_supervisor_that_was_replaced_is_told_once_and_ends_nothing():
    state = State(current=Version(tag="moths:1", config=DeployConfig(), since="2026-01-01T00:00:00+00:00"))
    state = state.with_event("deployed", "moths:1")
    lost = [(1767225605.0, "its server process 7 was killed, 8 took its place")]
    told = with_recoveries(with_recoveries(state, lost), lost)
    deployed, recovered = entries(told.history)
    assert deployed.outcome == "serving"
    assert (recovered.action, recovered.detail, recovered.outcome) == ("recovered", lost[0][1], None)
    assert recovered.time == "2026-01-01T00:00:05+00:00"


def test_a_version_that_failed_to_come_up_ends_nothing():
    first, failed, second = entries(happened(("deployed", "moths:1"), ("failed", "moths:2"), ("stopped", "moths:1")))
    assert (first.outcome, first.until) == ("stopped", "2026-01-01T00:00:02+00:00")
    assert failed.outcome == "failed"
    assert second.outcome is None


def test_only_the_first_end_counts():
    first, *_ = entries(happened(("started", "moths:1"), ("ended", "moths:1"), ("stopped", "moths:1")))
    assert first.outcome == "failed"


def test_the_end_of_what_ended_by_itself_is_told_once():
    current = Version(tag="moths:1", config=DeployConfig(), since="2026-01-01T00:00:00+00:00")
    state = State(current=current, history=tuple(happened(("deployed", "moths:1"))))
    once = with_end(state, "its process was killed", time="2026-01-01T00:00:05+00:00")
    assert with_end(once, "again") == once
    first, ended = entries(once.history)
    assert (first.outcome, first.until, first.ending) == ("failed", ended.time, "its process was killed")


def test_a_history_is_bounded_in_events_and_in_what_they_say():
    state = State()
    for number in range(HISTORY + 5):
        state = state.with_event("deployed", f"moths:{number}", reason="x" * 5000)
    assert len(state.history) == HISTORY
    assert state.history[-1].tag == f"moths:{HISTORY + 4}"
    assert len(state.history[-1].reason) == LONGEST


def test_events_that_were_kept_before_they_said_who_and_why_are_read():
    event = Event.model_validate({"time": "2026-01-01T00:00:00+00:00", "action": "deployed", "tag": "moths:1"})
    assert (event.by, event.reason) == ("", "")
