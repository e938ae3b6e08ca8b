"""What the history of a deployment says of each version: who began it, why, and how it ended."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from imago.serving.deployment import Event, State, model_of

Outcome = Literal["serving", "replaced", "rolled back", "stopped", "gave way", "failed"]

BEGINNINGS = frozenset({"deployed", "started", "rolled back"})
ENDINGS: dict[str, Outcome] = {
    "deployed": "replaced",
    "started": "replaced",
    "rolled back": "rolled back",
    "stopped": "stopped",
    "gave way": "gave way",
    "ended": "failed",
}
"""How what served before has ended, by what happened next."""


class Entry(Event):
    """Something that happened and, where a version began to serve by it or failed to, what became of that."""

    version: str
    outcome: Outcome | None = None
    until: str | None = None  # ISO 8601, UTC; None: it serves still, or never did
    ending: str = ""  # what ended it, in words


def entries(events: Sequence[Event]) -> tuple[Entry, ...]:
    """Return what happened, the oldest first, each beginning with its end."""
    found: list[Entry] = []
    following: Event | None = None
    for event in reversed(events):
        entry = Entry(**event.model_dump(), version=model_of(event.tag)["version"])
        if event.action == "failed":
            entry = entry.model_copy(update={"outcome": "failed"})
        elif event.action in BEGINNINGS and following is None:
            entry = entry.model_copy(update={"outcome": "serving"})
        elif event.action in BEGINNINGS and following is not None:
            ending = {"outcome": ENDINGS[following.action], "until": following.time, "ending": _words(following)}
            entry = entry.model_copy(update=ending)
        if event.action in ENDINGS:
            following = event
        found.append(entry)
    return tuple(reversed(found))


def last_end(events: Sequence[Event]) -> str | None:
    """Say why nothing is served: what ended what was served last, or failed since then; None where nobody knows."""
    if events and events[-1].action == "failed":
        return events[-1].detail.rstrip(".")
    last = _last(events)
    if last is None or last.action in BEGINNINGS:
        return None
    if last.action == "ended":
        return last.detail
    words = (last.action, last.detail, last.by and f"by {last.by}", last.reason and f"({last.reason})")
    return " ".join(word for word in words if word)


def has_ended(events: Sequence[Event]) -> bool:
    """Tell whether what was served last is known to have ended by itself."""
    last = _last(events)
    return last is not None and last.action == "ended"


def with_end(state: State, reason: str, *, time: str | None = None) -> State:
    """Return the state with the news that what served ended by itself, unless that is known already."""
    if state.current is None or has_ended(state.history):
        return state
    return state.with_event("ended", state.current.tag, reason, time=time)


def with_recoveries(state: State, recoveries: Sequence[tuple[float, str]]) -> State:
    """Return the state with the news that the supervisor was lost and replaced, each once.

    Of each it is told when, in seconds since the epoch, and in words what was lost.
    """
    known = {event.detail for event in state.history if event.action == "recovered"}
    for moment, words in recoveries:
        if state.current is not None and words not in known:
            time = datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
            state = state.with_event("recovered", state.current.tag, words, time=time)
    return state


def _last(events: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(events) if event.action in ENDINGS), None)


def _words(event: Event) -> str:
    if event.action not in BEGINNINGS:
        return event.detail
    return f"to {event.tag}" if event.action == "rolled back" else f"by {event.tag}"
