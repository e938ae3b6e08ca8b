"""`run.py deployment`: what is served, and how to start it, stop it, and go back to the version before."""

import json

import click

from cli.key import key
from imago.errors import ConfigError

SHARE = 0.1  # of the requests, for a shadow of which nothing else is said

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
_name = click.option(
    "--name", metavar="MODEL", help="Which deployment; without it the one that runs, else the one that changed last."
)
_reason = click.option("--reason", default="", metavar="TEXT", help="Why, for the history.")


@click.group()
def deployment() -> None:
    """See and change what is served."""


deployment.add_command(key)


@deployment.command()
@_name
@_json
def status(name: str | None, as_json: bool) -> None:
    """Say what is being served."""
    from imago.serving.rollout import Deployment

    chosen = _chosen(name)
    if chosen is None:
        from imago.serving.deployment import Status

        _show(Status(running=False), as_json)
    else:
        _show(Deployment(chosen).status(), as_json)


@deployment.command()
@_name
@_reason
@_json
def start(name: str | None, reason: str, as_json: bool) -> None:
    """Serve again what was served last, after a stop or a reboot."""
    from imago.serving import deployment as states
    from imago.serving.rollout import Deployment

    by, chosen = "run.py deployment start", _required(name)
    status = Deployment(chosen, by=by, on_progress=_say).start(reason=reason)
    if status.running and states.read(chosen).unpromoted:
        from cli import logs

        with logs.stdout_to_stderr():
            from stack import deploy, register

            logs.configure(debug=False)
            register.ensure()
            status = deploy.finish_rollback(chosen, by=by, reason=reason)
    _show(status, as_json)


@deployment.command()
@_name
@_reason
@_json
def stop(name: str | None, reason: str, as_json: bool) -> None:
    """Answer what is under way, then end the server and all its processes."""
    from imago.serving.rollout import Deployment

    served = Deployment(_required(name), by="run.py deployment stop", on_progress=_say)
    _show(served.stop(reason=reason), as_json)


@deployment.command()
@_name
@_reason
@_json
def rollback(name: str | None, reason: str, as_json: bool) -> None:
    """Serve the version before, and let it stand for production again."""
    from cli import logs

    with logs.stdout_to_stderr():
        from stack import deploy, register

        logs.configure(debug=False)
        register.ensure()
        status = deploy.rollback(_required(name), _say, by="run.py deployment rollback", reason=reason)
    _show(status, as_json)


@deployment.command()
@click.argument("version", required=False)
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="Of the requests; 0.1 if not given."
)
@click.option("--stop", "ends", is_flag=True, help="Ask it no more, and end it.")
@_name
@_reason
@_json
def shadow(version: str | None, share: float | None, ends: bool, name: str | None, reason: str, as_json: bool) -> None:
    """Ask VERSION what the endpoint is asked, unseen by its clients.

    Without VERSION, compare what it says with the answers that were given.
    """
    if version is not None and ends:
        raise click.UsageError("Say either VERSION, which is to be asked, or --stop.")
    if version is None and not ends and reason:
        raise click.UsageError("Say which VERSION is to be asked for that reason, or --stop.")
    if version is None and share is not None:
        raise click.UsageError("Say which VERSION is to be asked that share.")
    if ends:
        from imago.serving.rollout import Deployment

        served = Deployment(_required(name), by="run.py deployment shadow", on_progress=_say)
        _show(served.stop_shadow(reason=reason), as_json)
    elif version is not None:
        _begin_shadow(_required(name), version, share or SHARE, reason, as_json)
    else:
        _compare(_required(name), as_json)


@deployment.command()
@_name
@_json
def history(name: str | None, as_json: bool) -> None:
    """List which version served when, by whose doing and why, and how it ended; the oldest first."""
    from imago.serving.rollout import Deployment

    chosen = _chosen(name)
    found = Deployment(chosen).history() if chosen else ()
    if as_json:
        click.echo(json.dumps({"name": chosen, "history": [entry.model_dump() for entry in found]}))
        return
    if not found:
        click.echo("Nothing was ever deployed.")
    for entry in found:
        when = f"at {entry.until}" if entry.until else ""
        outcome = entry.outcome if entry.outcome and entry.outcome != entry.action else ""
        became = ", ".join(word for word in (f"{outcome} {when}".strip(), entry.ending) if word)
        click.echo(f"{entry.time}  {entry.tag}  {entry.action}{became and f': {became}'}")
        said = {"": entry.detail, "by ": entry.by, "because: ": entry.reason}
        for word, line in said.items():
            if line:
                click.echo(f"    {word}{line}")


def _begin_shadow(name: str, version: str, share: float, reason: str, as_json: bool) -> None:
    from cli import logs

    with logs.stdout_to_stderr():
        from stack import deploy, register

        logs.configure(debug=False)
        register.ensure()
        status = deploy.shadow(name, version, share, _say, by="run.py deployment shadow", reason=reason)
    _show(status, as_json)


def _compare(name: str, as_json: bool) -> None:
    """Show how the shadow's answers compare, or those of what was one last."""
    from cli.shadow import tell, tell_status
    from imago import home
    from imago.monitoring.prediction_store import PredictionStore
    from imago.monitoring.shadow_comparison import compare_shadow
    from imago.serving.rollout import Deployment

    store, status = PredictionStore(home.home() / "predictions.sqlite"), Deployment(name).status()
    shadow = status.shadow
    model = status.model["name"] if status.model else name
    pair = (status.model["version"], shadow.model["version"]) if status.model and shadow else store.last_pair(model)
    champion, challenger = pair or (None, None)
    found = compare_shadow(store, model, *pair) if pair else None
    if as_json:
        told = {"name": name, "champion": champion, "challenger": challenger}
        beside = shadow.model_dump(mode="json") if shadow else None
        click.echo(
            json.dumps(told | {"shadow": beside, "comparison": found.model_dump(mode="json") if found else None})
        )
        return
    if found is None or champion is None or challenger is None:
        click.echo(f"No version was ever a shadow of '{name}': `python run.py deployment shadow VERSION` makes one.")
        return
    for line in tell(found, champion, challenger):
        click.echo(line)
    click.echo(tell_status(shadow) if shadow else "It is no shadow any more.")


def _chosen(name: str | None) -> str | None:
    """Return the deployment that is meant, or None where there is none at all. Raises ConfigError."""
    from imago.serving import deployment as states

    known = states.names()
    if name is not None:
        if name not in known:
            from imago.errors import did_you_mean

            raise ConfigError(f"No deployment '{name}'.{did_you_mean(name, known)}")
        return name
    if len(known) > 1:
        from imago.serving.rollout import Deployment

        running = [one for one in known if Deployment(one).status().running]
        if len(running) > 1:
            raise ConfigError(f"Several deployments run: say which with `--name`, one of {', '.join(running)}.")
        return running[0] if running else known[0]  # the one that changed last
    return known[0] if known else None


def _required(name: str | None) -> str:
    chosen = _chosen(name)
    if chosen is None:
        raise ConfigError("Nothing was ever deployed: run `python run.py --pipeline training` first.")
    return chosen


def _show(status: object, as_json: bool) -> None:
    from imago.serving.deployment import Status

    assert isinstance(status, Status)
    if as_json:
        click.echo(json.dumps(status.to_json()))
        return
    model = f"{status.model['name']} version {status.model['version']}" if status.model else "nothing"
    if status.running:
        click.echo(f"{model} serves on {status.endpoint} since {status.since} (page: {status.endpoint}/ui)")
    elif status.model:
        named = f" --name {status.model['name']}"
        click.echo(f"Not running. {model} was served last: `python run.py deployment start{named}` serves it again.")
        if status.reason:
            click.echo(f"Why: {status.reason}.")
        for line in status.log:
            click.echo(f"| {line}")
    else:
        click.echo("Nothing was ever deployed.")
    if status.pids:
        click.echo(f"Processes: {', '.join(map(str, status.pids))}")
    if status.shadow:
        from cli.shadow import tell_status

        click.echo(tell_status(status.shadow))
    if status.previous:
        click.echo(f"Before it: version {status.previous['version']} (`python run.py deployment rollback`)")


def _say(line: str) -> None:
    click.echo(line, err=True)
