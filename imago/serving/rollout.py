"""Puts one version of a model in the place of another without a request lost, or leaves things as they were.

The new version starts behind a private port, must answer its golden samples there, then takes the public listening
socket over from the version that serves: both accept from one queue until the old one, drained, has ended. Whatever
fails before that ends the new version and leaves the old one alone.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from imago import home, telemetry
from imago.config import DeployConfig
from imago.errors import ConfigError, DeploymentFailed, ImagoError
from imago.serving import deployment, golden_samples, guard, health, key_file, processes, shadow, trial
from imago.serving.deployment import Process, Shadow, State, Status, Version
from imago.serving.history import Entry, entries, has_ended
from imago.serving.package import ModelPackage
from imago.serving.trial import Trial

logger = logging.getLogger("imago.rollout")


def worker_command(tag: str) -> list[str]:
    """Return the command that serves a Bento by its exact tag, for the supervisor to run."""
    return [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), tag]


def package_of(tag: str) -> ModelPackage:
    """Return the model package inside a Bento. Raises DeploymentFailed where there is no such Bento."""
    telemetry.switch_off()
    os.environ.setdefault("BENTOML_HOME", str(home.home() / "bentoml"))
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        (model,) = bentoml.get(tag).info.all_models
        return ModelPackage(Path(bentoml.models.get(model.tag).path))
    except (BentoMLException, ValueError) as error:
        raise DeploymentFailed(
            f"{tag} cannot be deployed, it is not whole in {os.environ['BENTOML_HOME']} ({type(error).__name__}): run "
            "the training that made it again, its steps are cached and the Bento is built anew."
        ) from error


class Deployment:
    """The versions of one model behind one public port. `by` says in the history whose doing a change was."""

    def __init__(
        self,
        name: str,
        *,
        by: str = "",
        on_progress: Callable[[str], None] = logger.info,
        command: Callable[[str], Sequence[str]] = worker_command,
        package: Callable[[str], ModelPackage] = package_of,
    ) -> None:
        self.name = deployment.checked(name)
        self.by = by
        self.say = on_progress
        self.command = command
        self.package = package

    def deploy(
        self, tag: str, config: DeployConfig, *, reason: str = "", require: Callable[[], object] = lambda: None
    ) -> Status:
        """Serve a version on the public port. Raises DeploymentFailed, with what served before still serving.

        `require` raises where this version is wanted no longer, after another deployment was waited for.
        """
        with deployment.locked(self.name, wait_seconds=config.timeout_seconds):
            require()
            state = self._tidy()
            if self.serves(tag, config):
                self.say(f"{tag} is already serving on {deployment.endpoint(config)}")
                if state.unpromoted:
                    deployment.write(self.name, state.model_copy(update={"unpromoted": None}))
                return self.status()
            return self._replace(state, tag, config, "deployed", reason)

    def serves(self, tag: str, config: DeployConfig) -> bool:
        """Say whether this very Bento is serving, configured and guarded as it would be now."""
        current = deployment.read(self.name).current
        alike = current and config.model_copy(update={"shadow": current.config.shadow})  # which is not its own affair
        same = current is not None and (current.tag, current.config) == (tag, alike)
        return bool(same and current and not guard.changed(current.guard, os.environ) and self.status().running)

    def start(self, *, reason: str = "") -> Status:
        """Serve again what was served last, after a stop or a reboot, or as it is to be guarded now."""
        with deployment.locked(self.name):
            state = self._tidy()
            if state.current is None:
                raise ConfigError(f"Nothing was ever deployed as '{self.name}': train and promote a model first.")
            if self.status().running and not guard.changed(state.current.guard, os.environ):
                return self.status()
            return self._replace(state, state.current.tag, state.current.config, "started", reason)

    def stop(self, *, reason: str = "") -> Status:
        """End the whole process tree; what is under way is answered first."""
        with deployment.locked(self.name):
            current = self._end_current("stopped", reason=reason)
            if current is None:
                return self.status()
            if not processes.free(current.config.host, current.config.port):
                raise ImagoError(
                    f"{current.tag} was stopped, but port {current.config.port} is still held by "
                    f"{processes.holder(current.config.port)}."
                )
            return self.status()

    def give_way(self, tag: str) -> None:
        """End what is served here, because another model's version has taken the port over."""
        with deployment.locked(self.name):
            self._end_current("gave way", f"to {tag}")

    def rollback(self, *, reason: str = "", standing: str | None = None) -> Status:
        """Serve the version before, as it was configured; it is `unpromoted` until it is deployed.

        What stands for production meanwhile, by its number, is kept with that.
        """
        with deployment.locked(self.name):
            state = self._tidy().model_copy(update={"standing": standing})
            if state.previous is None:
                raise ConfigError(f"Deployment '{self.name}' has no version before this one to go back to.")
            return self._replace(state, state.previous.tag, state.previous.config, "rolled back", reason)

    def give_up_promotion(self) -> None:
        """Leave what was rolled back to without the stage that it was to have, because another has come by it."""
        with deployment.locked(self.name):
            deployment.write(self.name, deployment.read(self.name).model_copy(update={"unpromoted": None}))

    def start_shadow(self, tag: str, share: float, *, reason: str = "") -> Status:
        """Start a version beside the one that serves, to be asked a share of the same; it takes another's place.

        Raises ConfigError where nothing serves or this version does, and DeploymentFailed where it cannot be started;
        what serves goes on as before.
        """
        with deployment.locked(self.name):
            state = self._tidy()
            champion = shadow.check(state, tag, share)
            note = shadow.read_note(self.name)
            if state.shadow and state.shadow.tag == tag and note and note.port == state.shadow.process.port:
                again = state.shadow.model_copy(update={"share": share})
                shadow.write_note(self.name, note.model_copy(update={"share": share}))
                deployment.write(self.name, state.model_copy(update={"shadow": again}))
                return self.status()
            state = self._without_shadow(state, f"for {tag}")
            self._begin_shadow(state, champion, tag, share, reason)
            return self.status()

    def stop_shadow(self, *, reason: str = "") -> Status:
        """End the shadow and all its processes, where there is one."""
        with deployment.locked(self.name):
            self._without_shadow(self._tidy(), "stopped", reason)
            return self.status()

    def require_port(self, config: DeployConfig) -> None:
        """Raise before the work for a deployment is done.

        DeploymentFailed where a stranger holds the port, ConfigError where a limit in the environment is none.
        """
        guard.check_limits(os.environ)
        known = [deployment.read(name).current for name in deployment.names()]
        ours = [version for version in known if version and version.process and processes.tree(version.process)]
        if not any(version.config.port == config.port for version in ours):
            _require_free(config)

    def status(self) -> Status:
        """Return what serves right now. Its endpoint is asked, for at most two seconds."""
        state = deployment.read(self.name)
        previous = state.previous.model if state.previous else None
        if state.current is None:
            return Status(running=False)
        beside = shadow.status(state.shadow)
        process = state.current.process
        lives = process is not None and processes.alive_again(process)
        running = lives and health.answers(f"{state.current.endpoint}/readyz")
        return Status(
            running=running,
            endpoint=state.current.endpoint if running else None,
            model=state.current.model,
            previous=previous,
            pids=processes.tree(process) if process else (),
            since=state.current.since,
            reason=None if running else health.why_not(state, process),
            log=tuple(processes.log_tail(process)) if process and not running else (),
            shadow=beside,
        )

    def history(self) -> tuple[Entry, ...]:
        """Return what happened, the oldest first, with what became of it."""
        return entries(health.told(deployment.read(self.name)).history)

    def _end_current(self, action: str, detail: str = "", reason: str = "") -> Version | None:
        """End the version that serves and return it, or None where none does."""
        state = self._without_shadow(self._tidy(), action)
        current = state.current
        if current is None or current.process is None:
            return None
        stopped = current.model_copy(update={"process": None, "since": deployment.now()})
        ended = state.model_copy(update={"current": stopped})
        if has_ended(state.history):  # how that came stays the last word
            self.say(f"{current.tag} had ended by itself before")
        else:
            self.say(f"stopping {current.tag}")
            ended = ended.with_event(action, current.tag, detail, by=self.by, reason=reason)
        processes.end(current.process)
        deployment.write(self.name, ended)
        return current

    def _tidy(self) -> State:
        """End what an interrupted deployment or a lost supervisor left behind, and note the loss."""
        state = deployment.read(self.name)
        for process in state.leftover:
            processes.end(process)
        if state.current and state.current.process and not processes.alive_again(state.current.process):
            processes.end(state.current.process)
        tidied = shadow.tidied(self.name, health.told(state), by=self.by).model_copy(update={"leftover": ()})
        if tidied != state:
            deployment.write(self.name, tidied)
        return tidied

    def _replace(self, state: State, tag: str, config: DeployConfig, action: str, reason: str = "") -> Status:
        neighbour = self._neighbour(config)
        with self._failure_noted(state, tag, reason):
            old, new, committed = self._switch(state, tag, config, neighbour, action, reason)
        if state.shadow:
            shadow.end(self.name, state.shadow)
        if old and old.process:
            self.say(f"{tag} serves; draining {old.tag}")
            processes.end(old.process)
        deployment.write(self.name, committed.model_copy(update={"leftover": ()}))
        if neighbour:
            self._send_away(neighbour, tag)
        self.say(f"{tag} serves on {new.endpoint}")
        if warning := guard.warning(config.host, new.guard):
            self.say(warning)
        return self.status()

    def _begin_shadow(self, state: State, champion: Version, tag: str, share: float, reason: str) -> None:
        config, note = champion.config, shadow.new_note(champion, tag, share)
        detail = f"asked {share:.0%} of what {champion.tag} is asked"
        with self._failure_noted(state, tag, reason, action="shadow failed"):
            package = self.package(tag)
            golden_samples.check_sizes(package, tag, config)
            self.say(f"starting {tag}; {champion.tag} serves, and goes on to")
            failed = f"{tag} does not shadow {champion.tag}, which serves as before"
            beside = Trial(f"{self.name}.shadow", tag, package, config, self.command(tag), self.say, failed)
            environment = trial.environment(tag, config) | shadow.environment(note.key, champion)
            began = partial(self._note_leftover, state)
            with beside.passed(environment, note.key, began=began, workers=1, niceness=shadow.NICENESS) as process:
                new = Shadow(tag=tag, share=share, since=deployment.now(), process=process)
                begun = state.model_copy(update={"shadow": new})
                begun = begun.with_event("shadow started", tag, detail, by=self.by, reason=reason)
                deployment.write(self.name, begun)
                shadow.write_note(self.name, note.model_copy(update={"port": process.port}))
        self.say(f"{tag} is {detail}; no client hears it")

    def _without_shadow(self, state: State, why: str, reason: str = "") -> State:
        """End the shadow, where there is one, and return the state without it."""
        if state.shadow is None:
            return state
        self.say(f"ending the shadow {state.shadow.tag}")
        shadow.end(self.name, state.shadow)
        state = shadow.without(state, why, by=self.by, reason=reason)
        deployment.write(self.name, state)
        return state

    def _note_leftover(self, state: State, process: Process) -> None:
        deployment.write(self.name, state.model_copy(update={"leftover": (process,)}))

    @contextmanager
    def _failure_noted(self, state: State, tag: str, reason: str, *, action: str = "failed") -> Iterator[None]:
        """Put what fails into the history, beside the state as it was before."""
        try:
            yield
        except BaseException as error:
            detail = " ".join(f"{error or type(error).__name__}".split())
            try:
                failed = state.with_event(action, tag, detail, by=self.by, reason=reason)
                deployment.write(self.name, failed)
            except OSError as full:  # the state before still stands there
                self.say(f"the failure could not be noted in the history: {full}")
            raise

    def _switch(
        self, state: State, tag: str, config: DeployConfig, neighbour: str | None, action: str, reason: str
    ) -> tuple[Version | None, Version, State]:
        """Let a version answer on the public port, and return what served before, what does now, and the new state."""
        old = state.current if state.current and state.current.process and health.serves(state.current) else None
        package = self.package(tag)
        golden_samples.check_sizes(package, tag, config)
        door = self._check_port(state, config, old, neighbour)
        guarded, own = guard.renewed(state.current, os.environ, key_file.path())
        meanwhile = old.tag if old else f"{neighbour}, whose port it takes over," if neighbour else "nothing"
        self.say(f"starting {tag}; {meanwhile} serves meanwhile")
        failed = f"{tag} was not deployed, {f'{old.tag} still serves' if old else 'nothing is served'}"
        tried = Trial(self.name, tag, package, config, self.command(tag), self.say, failed)
        mirrors = {"IMAGO_SHADOW": str(shadow.note_path(self.name))}
        environment = trial.environment(tag, config) | own | mirrors
        key = os.environ.get(guard.KEY) or own[guard.PROBE_KEY]
        keys = key_file.path() if guarded.named else None
        began = partial(self._note_leftover, state)
        with tried.passed(environment, key, began=began, workers=trial.worker_count(config), keys=keys) as process:
            processes.ask(process, "publish", host=config.host, port=config.port, **door)
            new = Version(tag=tag, config=config, since=deployment.now(), process=process, guard=guarded)
            ended = tuple(one.process for one in (old, state.shadow) if one and one.process)
            committed = shadow.without(state, f"{tag} was {action}", by=self.by).model_copy(
                update={"current": new, "leftover": ended, "previous": _previous(state, tag)}
            )
            unpromoted = {"rolled back": tag, "started": state.unpromoted}.get(action)
            committed = committed.model_copy(update={"unpromoted": unpromoted})
            detail = f"in place of {old.tag}" if old else ""
            committed = committed.with_event(action, tag, detail, by=self.by, reason=reason)
            deployment.write(self.name, committed)
        return old, new, committed

    def _send_away(self, neighbour: str, tag: str) -> None:
        """Let the neighbour end; where it cannot be made to now, this version serves all the same."""
        try:
            Deployment(neighbour, by=self.by, on_progress=self.say).give_way(tag)
        except (ImagoError, OSError) as error:
            self.say(f"{neighbour} still serves beside {tag}: `deployment stop --name {neighbour}` ends it ({error})")
        else:
            self.say(f"{neighbour} serves no longer: to keep both, give one of them another deploy.port")

    def _neighbour(self, config: DeployConfig) -> str | None:
        """Return the deployment of another model that serves on the port which this one is to serve on."""
        for name in deployment.names():
            current = deployment.read(name).current
            if name != self.name and current and current.config.port == config.port and health.serves(current):
                return name
        return None

    def _check_port(
        self, state: State, config: DeployConfig, old: Version | None, neighbour: str | None
    ) -> dict[str, Any]:
        """Return whose port is taken over: the control socket of who lends it, or of who listens beside it.

        Raises DeploymentFailed where a stranger holds the port, or our own version without an answer.
        """
        if state.current and state.current.process and not old and processes.alive(state.current.process):
            raise DeploymentFailed(
                f"{state.current.tag} is running, but does not answer its supervisor: try again, "
                "or end it with `python run.py deployment stop`."
            )
        for holder in (old, deployment.read(neighbour).current if neighbour else None):
            if holder and holder.process and holder.config.port == config.port:
                return {"lender" if holder.config.host == config.host else "beside": holder.process.control}
        _require_free(config)
        return {}


def _require_free(config: DeployConfig) -> None:
    try:
        free = processes.free(config.host, config.port)
    except OSError as error:
        raise DeploymentFailed(f"{config.host}:{config.port} cannot be listened on: {error.strerror}.") from error
    if not free:
        raise DeploymentFailed(
            f"Port {config.port} is used by {processes.holder(config.port)}: stop it, or choose another deploy.port."
        )


def _previous(state: State, tag: str) -> Version | None:
    """Return what a rollback goes to: the last version with another tag."""
    if state.current is None or state.current.tag == tag:
        return state.previous
    return state.current.model_copy(update={"process": None})
