"""`run.py predict PICTURE…`: ask the endpoint, or the model in production where no endpoint runs."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from imago.errors import ConfigError

MAX_KEY_FILE_BYTES = 4096
PICTURES_FAULT = (400, 413, 415, 422)  # any other refusal would meet the next picture too


@click.command()
@click.argument(
    "pictures",
    metavar="PICTURE…",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option("--url", metavar="ENDPOINT", help="An endpoint's address, as http://127.0.0.1:3000.")
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Holds the key that the endpoint asks for; without it, IMAGO_API_KEY is the key.",
)
@click.option("--model", "name", metavar="NAME", help="Which model, where several are deployed or in production.")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(min=1), help="How many labels are shown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
@click.pass_context
def predict(
    ctx: click.Context,
    pictures: tuple[Path, ...],
    url: str | None,
    key_file: Path | None,
    name: str | None,
    top_k: int,
    as_json: bool,
) -> None:
    """Say what pictures show.

    Asks the endpoint at --url, else the one that runs on this machine, else runs the model in production here. Exits
    with 1 where any picture could not be predicted; the others are. A whole folder: --pipeline inference.
    """
    from cli.logs import stdout_to_stderr

    with stdout_to_stderr():
        key = _key_in(key_file) if key_file else None
        endpoint = url if url is not None else _running_endpoint(name)
        outcome = _here(name, pictures, top_k) if endpoint is None else _by_endpoint(endpoint, pictures, top_k, key)
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        for answer in outcome["predictions"]:
            _show(answer)
        model = outcome["model"]
        click.echo(f"by {model['name']} version {model['version']}, {outcome['endpoint'] or 'run on this machine'}")
    if any("error" in answer for answer in outcome["predictions"]):
        ctx.exit(1)


def _running_endpoint(name: str | None) -> str | None:
    from imago.serving import deployment
    from imago.serving.rollout import Deployment

    for candidate in [name] if name else deployment.names():
        status = Deployment(candidate).status()
        if status.running:
            return status.endpoint
    return None


def _key_in(file: Path) -> str:
    """Return the key in a file. Raises ConfigError where it holds none; what it holds is never shown."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The key file {file} cannot be read: {error.strerror}.") from error
    key = content.decode("utf-8", "replace").strip()
    if not key or len(content) > MAX_KEY_FILE_BYTES:
        raise ConfigError(f"The key file {file} must hold one key and nothing else.")
    return key


def _by_endpoint(endpoint: str, pictures: tuple[Path, ...], top_k: int, key: str | None) -> dict[str, Any]:
    from imago.serving.client import EndpointError

    try:
        return _asked(endpoint, pictures, top_k, key)
    except EndpointError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            raise
        remedy = f"{error} Here it is read from the file that --key-file names, or else from IMAGO_API_KEY."
        raise EndpointError(remedy, code=error.code, status=error.status) from error


def _asked(endpoint: str, pictures: tuple[Path, ...], top_k: int, key: str | None) -> dict[str, Any]:
    from imago.data.listing import read_file
    from imago.serving.client import Client, EndpointError

    answers: list[dict[str, Any]] = []
    model: dict[str, Any] = {}
    with Client(endpoint, key) as client:
        for picture in pictures:
            data = read_file(picture)
            if not data:
                answers.append(_not_read(picture))
                continue
            try:
                answer = client.predict(data).model_dump(mode="json")
            except EndpointError as error:
                if error.status not in PICTURES_FAULT:
                    raise
                answers.append({"path": str(picture), "error": {"code": error.code, "message": str(error)}})
                continue
            model = answer.pop("model")
            answers.append({"path": str(picture), **answer, "predictions": answer["predictions"][:top_k]})
        model = model or client.info().model.model_dump()
    return {"endpoint": client.url, "model": model, "predictions": answers}


def _here(name: str | None, pictures: tuple[Path, ...], top_k: int) -> dict[str, Any]:
    from cli.production import production_package
    from imago.data.listing import read_file
    from imago.serving.runtime import Runtime, Unreadable

    package, version = production_package(name)
    runtime = Runtime(package)
    answers: list[dict[str, Any]] = []
    for picture in pictures:
        data = read_file(picture)
        if not data:
            answers.append(_not_read(picture))
            continue
        [answer] = runtime.predict([data], top_k=top_k)
        if isinstance(answer, Unreadable):
            message = f"The picture cannot be predicted: {answer.message}."
            answers.append({"path": str(picture), "error": {"code": answer.code, "message": message}})
            continue
        answers.append(
            {
                "path": str(picture),
                "predictions": [{"label": label, "probability": value} for label, value in answer.top],
                "rejected": answer.rejected,
                "reason": answer.reason,
            }
        )
    return {"endpoint": None, "model": {"name": runtime.spec.name, "version": version}, "predictions": answers}


def _not_read(picture: Path) -> dict[str, Any]:
    from imago.data.listing import MAX_FILE_BYTES

    if not picture.exists():
        message = "There is no such file."
    elif picture.is_dir():
        message = "It is a folder: `--pipeline inference --data FOLDER` predicts all that is in one."
    else:
        message = f"The file is empty, not to be read, or larger than {MAX_FILE_BYTES:,} bytes."
    return {"path": str(picture), "error": {"code": "not_read", "message": message}}


def _show(answer: dict[str, Any]) -> None:
    if "error" in answer:
        click.echo(f"{answer['path']}: {answer['error']['message']}")
        return
    first, *others = answer["predictions"]
    unsure = f"  (rejected: {answer['reason']})" if answer["rejected"] else ""
    click.echo(f"{answer['path']}: {first['label']} {first['probability']:.1%}{unsure}")
    for other in others:
        click.echo(f"    {other['label']} {other['probability']:.1%}")
