"""`run.py stack`: which stacks there are, which one is used, and whether one could be."""

import json
from dataclasses import asdict

import click

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")


@click.group()
def stack() -> None:
    """Choose where pipelines run: local, docker or kubernetes."""


@stack.command("list")
@_json
def list_stacks(as_json: bool) -> None:
    """List the stacks."""
    from cli import logs

    with logs.stdout_to_stderr():
        from stack import register

        logs.configure(debug=False)
        rows = register.rows()
    if as_json:
        click.echo(json.dumps({"stacks": [asdict(row) for row in rows]}))
        return
    for row in rows:
        click.echo(f"{'*' if row.active else ' '} {row.name:<12} {row.summary}")


@stack.command()
@click.argument("name")
@_json
def use(name: str, as_json: bool) -> None:
    """Register stack NAME where it is not yet, and use it from now on."""
    from cli import logs

    with logs.stdout_to_stderr():
        from stack import register

        logs.configure(debug=False)
        used = register.use(name)
    click.echo(json.dumps({"name": name, "stack": used}) if as_json else f"Pipelines now run on {used}.")


@stack.command()
@click.argument("name", required=False)
@_json
@click.pass_context
def check(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Look at each component of stack NAME, or of the one in use; exit with 1 where one is missing."""
    from cli import logs

    with logs.stdout_to_stderr():
        from stack import blueprint, register
        from stack.check import check as look

        logs.configure(debug=False)
        plan = blueprint.load(name or register.chosen_name())
        found = look(plan)
    ok = all(part.ok for part in found)
    if as_json:
        parts = [asdict(part) for part in found]
        click.echo(json.dumps({"name": plan.name, "stack": plan.stack, "ok": ok, "components": parts}))
    else:
        click.echo(f"Stack {plan.name}: {'ready' if ok else 'not ready'}")
        for part in found:
            mark = "ok     " if part.ok else "missing"
            click.echo(f"  {mark} {part.component:<19} {part.flavor:<14} {part.problem}".rstrip())
            if not part.ok:
                click.echo(f"          → {part.remedy}")
    ctx.exit(0 if ok else 1)
