"""`run.py deployment key`: who may ask the endpoint."""

import json

import click

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
_name = click.argument("name")


@click.group()
def key() -> None:
    """Give out and revoke the keys that clients of the endpoint must send."""


@key.command()
@_name
@_json
def add(name: str, as_json: bool) -> None:
    """Make a key and show it, this once. With the first one, nobody is answered without a key any more."""
    from imago.serving import key_file

    first = not key_file.path().exists()
    made, secret = key_file.add(name)
    if as_json:
        click.echo(json.dumps({"name": made.name, "key": secret, "created": made.created}))
        return
    click.echo(secret)
    click.echo("It is shown this once. Clients send it as `X-API-Key`.", err=True)
    if first:
        click.echo("It is the first key: from now on nobody is answered without one.", err=True)


@key.command(name="list")
@_json
def list_keys(as_json: bool) -> None:
    """List the keys' names, never the keys."""
    from imago.serving import key_file

    keys = key_file.listed()
    if as_json:
        click.echo(json.dumps({"keys": [one.model_dump(exclude={"digest"}) for one in keys]}))
        return
    if not keys:
        click.echo("There is no key.")
    for one in keys:
        click.echo(f"{one.name}  since {one.created}" + (f", revoked {one.revoked}" if one.revoked else ""))


@key.command()
@_name
@_json
def revoke(name: str, as_json: bool) -> None:
    """Let a key open nothing any more, within a second; the endpoint goes on serving."""
    from imago.serving import key_file

    revoked = key_file.revoke(name)
    if as_json:
        click.echo(json.dumps(revoked.model_dump(exclude={"digest"})))
    else:
        click.echo(f"'{name}' is revoked.")
