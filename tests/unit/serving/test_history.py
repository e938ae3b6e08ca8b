"""What became of each version, read from what happened to its deployment."""

import pytest

from imago.serving.deployment import HISTORY, LONGEST, Event, State
from imago.serving.history import entries


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
    ],
)
def test_what_happened_next_is_how_a_version_ended(event, outcome, ending):
    first, _ = entries(happened(("deployed", "moths:1"), event))
    assert (first.outcome, first.until, first.ending) == (outcome, "2026-01-01T00:00:01+00:00", ending)


def test_a_version_that_failed_to_come_up_ends_nothing():
    first, failed, second = entries(happened(("deployed", "moths:1"), ("failed", "moths:2"), ("stopped", "moths:1")))
    assert (first.outcome, first.until) == ("stopped", "2026-01-01T00:00:02+00:00")
    assert failed.outcome == "failed"
    assert second.outcome is None


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
