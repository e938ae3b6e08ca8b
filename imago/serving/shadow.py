"""A challenger beside the version that serves: asked a share of the same pictures, never heard by a client.

What is kept of it in the deployment's state says which process it is; a note beside says so to the workers that serve,
who look at it once a second, before they ask, and where no answer comes.
"""

import os
import secrets
from pathlib import Path

from pydantic import ValidationError

from imago import home
from imago.errors import ConfigError
from imago.files import replacing
from imago.serving import deployment, health, processes
from imago.serving.deployment import Shadow, ShadowStatus, State, Version
from imago.serving.shadow_note import ShadowNote

NICENESS = 19  # it computes when nobody else does
GRACE_SECONDS = 2.0  # to end in: nobody waits for its answers


def note_path(name: str) -> Path:
    """Return where the workers of a model's deployment look for the note, there or not."""
    return home.home() / "shadows" / f"{deployment.checked(name)}.json"


def read_note(name: str) -> ShadowNote | None:
    """Return the note, or None where there is none that can be read."""
    try:
        return ShadowNote.model_validate_json(note_path(name).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_note(name: str, note: ShadowNote) -> None:
    """Tell the workers, in one step; none but their owner may read it, for it has the shadow's key."""
    with (
        replacing(note_path(name)) as partial,
        open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,  # noqa: PTH123
    ):
        file.write(note.model_dump_json().encode())


def new_note(champion: Version, tag: str, share: float) -> ShadowNote:
    """Return a note with a key that nobody else has; its port is not known yet."""
    model, key = deployment.model_of(tag), secrets.token_urlsafe(32)
    version = champion.model["version"]
    return ShadowNote(model=model["name"], champion=version, version=model["version"], share=share, port=0, key=key)


def environment(key: str, champion: Version) -> dict[str, str]:
    """Return in what a shadow's environment differs from that of a version that serves.

    It keeps nothing, shows nothing, mirrors nothing, and answers none but who has its key.
    """
    off = ("PREDICTIONS", "SHADOW", "SHELF", "CORS_ORIGINS", "KEYS", "PROBE_KEY", "RATE_LIMIT")
    return champion.guard.limits | {f"IMAGO_{name}": "" for name in off} | {"IMAGO_API_KEY": key}


def check(state: State, tag: str, share: float) -> Version:
    """Return the version that serves, which the one in this Bento may shadow. Raises ConfigError."""
    current = state.current
    if not 0 < share <= 1:
        raise ConfigError(f"A share of {share:g} cannot be mirrored: give one above 0 and up to 1 (deploy.shadow).")
    if current is None or not health.serves(current):
        raise ConfigError(
            f"{tag} has nothing to shadow, for nothing serves: `python run.py deployment start` serves what was "
            "served last."
        )
    if current.model == deployment.model_of(tag):
        raise ConfigError(f"{tag} is what serves: a version does not shadow itself.")
    return current


def end(name: str, shadow: Shadow) -> None:
    """Let the workers ask it no more, then end it with all its processes; what it answers no more is no failure."""
    note_path(name).unlink(missing_ok=True)
    processes.end(shadow.process, grace=GRACE_SECONDS)


def tidied(name: str, state: State, *, by: str = "") -> State:
    """Return the state without a shadow whose process, or whose champion's, is gone; what is left of it is ended."""
    shadow, current = state.shadow, state.current
    if shadow is None:
        return state
    lives = processes.alive(shadow.process)
    if lives and current and current.process and processes.alive(current.process):
        return state
    why = "what it shadowed is gone" if lives else processes.how_ended(shadow.process)[0]
    end(name, shadow)
    return without(state, why, by=by)


def without(state: State, why: str, *, by: str = "", reason: str = "") -> State:
    """Return the state without its shadow, and with the news why."""
    if state.shadow is None:
        return state
    ended = state.model_copy(update={"shadow": None})
    return ended.with_event("shadow ended", state.shadow.tag, why, by=by, reason=reason)


def status(shadow: Shadow | None) -> ShadowStatus | None:
    """Return what a shadow does at this moment, None where there is none."""
    if shadow is None:
        return None
    running = processes.alive(shadow.process) and health.answers(f"http://127.0.0.1:{shadow.process.port}/readyz")
    return ShadowStatus(
        running=running,
        model=deployment.model_of(shadow.tag),
        share=shadow.share,
        since=shadow.since,
        pids=processes.tree(shadow.process),
        reason=None if running else _why_not(shadow),
    )


def _why_not(shadow: Shadow) -> str:
    if processes.alive(shadow.process):
        return f"its server process {processes.supervisor(shadow.process)} runs, but does not answer"
    return processes.how_ended(shadow.process)[0]
