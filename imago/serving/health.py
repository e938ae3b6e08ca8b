"""Whether a version answers, and what is known of one that does not."""

import time

import httpx

from imago.serving import processes
from imago.serving.deployment import Process, State, Version
from imago.serving.history import last_end, with_end, with_recoveries
from imago.serving.settings import PROBE_HEADER

ANSWER_SECONDS = 5.0  # in which a supervisor answers


def answers(url: str) -> bool:
    """Say whether the URL is answered with 200 within two seconds."""
    try:
        return httpx.get(url, timeout=2, headers={PROBE_HEADER: "ready"}, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def serves(version: Version) -> bool:
    """Say whether its supervisor lives, and has the public port."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while version.process is not None and processes.alive_again(version.process):
        try:
            return bool(processes.ask(version.process, "status", timeout=ANSWER_SECONDS)["published"])
        except processes.NoAnswerError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)  # one that is being killed at this moment is there still, and says nothing
    return False


def why_not(state: State, process: Process | None) -> str | None:
    """Return why what was deployed does not answer, where that is known."""
    if process is not None and processes.alive(process):
        return f"its server process {processes.supervisor(process)} runs, but the endpoint does not answer"
    if process is None or (state.history and state.history[-1].action == "failed"):
        return last_end(state.history)
    return processes.how_ended(process)[0]


def told(state: State) -> State:
    """Return the state with the news that what served is gone, where it is and nobody stopped it.

    That its supervisor was lost, and another took its place, is news as well.
    """
    process = state.current.process if state.current else None
    if process is None:
        return state
    state = with_recoveries(state, processes.recoveries(process))
    if processes.alive_again(process):
        return state
    reason, moment = processes.how_ended(process)
    return with_end(state, reason, time=moment)
