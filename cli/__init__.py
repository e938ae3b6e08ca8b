"""The command line. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

import errno
import json
import os
import sys
import traceback

import click

from imago import home
from imago.errors import ImagoError, did_you_mean, notes_of

_COMMANDS = {
    "data": "cli.data:data",
    "predict": "cli.predict:predict",
    "deployment": "cli.deployment:deployment",
    "stack": "cli.stack:stack",
    "doctor": "cli.doctor:doctor",
}
_REMEDIES = {
    errno.ENOSPC: " (make room there, then run it again: nothing half-written is read)",
    errno.EDQUOT: " (make room within your quota, then run it again: nothing half-written is read)",
    errno.EACCES: " (give yourself the right to it, or name another place)",
    errno.EROFS: " (that disk is read-only: name another place)",
}
PIPELINES = ("training", "inference", "monitoring", "sweep")


class _Front(click.Group):
    """Loads a command's module only when it is asked for, and offers the nearest name for an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(":")
        return getattr(__import__(module, fromlist=[attribute]), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            raise click.UsageError(f"No such command '{args[0]}'.{did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Front,
    invoke_without_command=True,
    context_settings={"max_content_width": 110},
)
@click.option("--pipeline", type=click.Choice(PIPELINES), help="Run a pipeline.")
@click.option("--config", metavar="NAME_OR_PATH", help="Configuration: a name in configs/, or a file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; repeatable.")
@click.option("--data", metavar="PATH_OR_URI", help="Where the pictures are; nothing: the embedded synthetic moths.")
@click.option("--stack", metavar="NAME", help="The ZenML stack to run on.")
@click.option("--no-cache", is_flag=True, help="Run every step, also those that would be cached; a sweep starts anew.")
@click.option("--dry-run", is_flag=True, help="Check the configuration and the data's place, say what would run, stop.")
@click.option("--require-promotion", is_flag=True, help="Exit with 4 where the model was not promoted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
@click.option("--debug", is_flag=True, help="Show every library's log lines, and tracebacks.")
@click.pass_context
def front(ctx: click.Context, pipeline: str | None, as_json: bool, debug: bool, **options: object) -> None:
    """Train, test, deploy and monitor image classifiers.

    \b
    python run.py --pipeline training                     the embedded synthetic moths
    python run.py --pipeline training --data FOLDER       your own pictures, a folder a class
    python run.py predict PICTURE…                        ask the model in production
    """
    ctx.obj = {"debug": debug}
    if ctx.invoked_subcommand:
        if pipeline or as_json or any(options.values()):
            raise click.UsageError(
                f"Options of '{ctx.invoked_subcommand}' stand behind its name; pipelines stand alone."
            )
        return
    if pipeline is None:
        if as_json or any(options.values()):
            raise click.UsageError(f"Say which pipeline: --pipeline {'|'.join(PIPELINES)}.")
        click.echo(ctx.get_help())
        return
    from cli.pipeline import run_pipeline

    run_pipeline(pipeline, as_json=as_json, debug=debug, **options)


def main() -> None:
    """Run the command line; turn every error into one line on stderr and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        _environment(debug)
        code = front.main(["--debug"] * debug + arguments, prog_name="run.py", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command
        click.echo(error.ctx.get_help(), err=True)
        sys.exit(2)
    except (ImagoError, click.ClickException) as error:
        usage = isinstance(error, click.ClickException)
        _fail(error.format_message() if usage else str(error), 2 if usage else error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        _fail(
            "Interrupted. What stood before still stands; the same command goes on after the last step or epoch done.",
            130,
            debug,
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        _fail(f"{error.strerror or error}{where}{remedy}", 1, debug)
    except Exception as error:  # noqa: BLE001  (the outermost edge: whatever it is becomes one line)
        _fail(
            f"{type(error).__name__}: {error} (nobody foresaw this: run it again with --debug to see where)", 1, debug
        )


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    line = " ".join(" ".join([message, *(f"({note})" for note in notes_of(sys.exception()))]).split())
    if "--json" in sys.argv:
        click.echo(json.dumps({"status": "failed", "error": line, "exit_code": code}))
    click.echo(f"error: {line}", err=True)
    sys.exit(code)


def _environment(debug: bool) -> None:
    """Set what libraries read when they are imported: where they keep things, and that they be quiet."""
    os.environ.setdefault("BENTOML_HOME", str(home.place("IMAGO_HOME") / "bentoml"))
    os.environ.setdefault("ZENML_CUSTOM_SOURCE_ROOT", str(home.ROOT))
    os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever else runs on these cores
    if str(home.ROOT) not in sys.path:
        sys.path.insert(0, str(home.ROOT))
    if not debug:
        os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "CRITICAL")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("BENTOML_DEBUG", "False")
