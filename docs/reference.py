"""Writes the reference pages from the code: `python docs/reference.py`. A test holds them to it."""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MADE = "<!-- Made by docs/reference.py from the code; edit that. -->\n"
HELP_WIDTH = 100


def cli_page() -> str:
    """Every command's help, the exit codes, and what `--json` prints."""
    from cli import front
    from imago import errors

    codes = sorted(
        (kind.exit_code, inspect.cleandoc(kind.__doc__ or ""))
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ImagoError)
    )
    lines = [
        "# Command line\n",
        MADE,
        "Every command answers `--help`; nothing is imported for that, so it answers at once.\n",
        "## Exit codes\n",
        *_table(("code", "meaning"), [("0", "Done."), *((str(code), meaning) for code, meaning in codes)]),
        "\nA command line that cannot be understood exits with 2 as well, Ctrl-C with 130. An error is one line on",
        "stderr; `--debug` shows the traceback. With `--json`, stdout is one JSON object and nothing else, also on "
        'failure: `{"status": "failed", "error", "exit_code"}`.\n',
        "## Commands\n",
    ]
    for context in _contexts(front, "python run.py", None):
        lines += [f"### {context.command_path.removeprefix('python ')}\n", "```text", context.get_help(), "```\n"]
    return "\n".join(lines)


def configuration_page() -> str:
    """Every key of the configuration, with its type, its default and the comment beside it."""
    from imago import config

    comments = comments_by_field(config)
    lines = [
        "# Configuration\n",
        MADE,
        "A run reads one YAML file: `--config NAME` looks in `configs/` and `configs/experiments/`, `--config PATH`",
        "takes any file; without it the pipeline's own name is looked up. Every key has a default. `--set key=value`",
        "goes over the file and may be repeated; the value is read as YAML, so `--set data.classes=[a,b]` is a list.",
        "An unknown key is refused, with the nearest known one.\n",
        "What is kept between runs lies in `.imago` beside the code, or where `IMAGO_HOME` says; reports lie in",
        "`reports`, or where `IMAGO_REPORTS` says.\n",
        *_section("", config.Config, comments),
    ]
    return "\n".join(lines)


def artifacts_page() -> str:
    """What the steps hand on, and what a model package is made of."""
    from imago.serving import package

    spec = comments_by_field(package)["ModelSpec"]
    rows = [(f"`{name}`", _type(field.annotation), spec.get(name, "")) for name, field in _fields(package.ModelSpec)]
    lines = [
        "# Artifacts\n",
        MADE,
        "Each step's output is a named, versioned artifact in ZenML. The first three columns are read from",
        "`steps/`; how a type is stored, and what the dashboard shows of it, stands in the file of the same name in",
        "`materializers/`. The columns of the tables are in the [data dictionary](../references/data-dictionary.md).\n",
        *_table(("artifact", "type", "made by"), sorted(_artifacts())),
        "\n## Folders are whole or not there\n",
        _doc("materializers/folder.py") + "\n",
        "## ModelPackage\n",
        "One package is what is evaluated, registered, served, rolled back to, and used by the inference pipeline.",
        "Nothing in it is a pickle.\n",
        *_table(("file", ""), ((f"`{name}`", _PACKAGE[name]) for name in (*package.FILES, *_SOMETIMES))),
        "\n`spec.json`:\n",
        *_table(("key", "type", ""), rows),
        "",
    ]
    return "\n".join(lines)


def http_page() -> str:
    """The endpoint's routes, its errors, and the environment that it reads."""
    from imago.serving import openapi

    document = openapi.describe("Imago", "1")
    routes = [
        (f"`{method.upper()} {path}`", _body(operation), _answer(operation), operation["summary"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    lines = [
        "# HTTP\n",
        MADE,
        "`GET /docs.json` is the same as an OpenAPI document. Pictures are sent as `multipart/form-data`:\n",
        "```shell",
        "curl -F image=@PICTURE.jpg http://127.0.0.1:3000/predict",
        "```\n",
        *_table(("route", "takes", "answers", ""), routes),
        "\n## Shapes\n",
        *_table(("name", "keys"), ((f"`{name}`", _keys(shape)) for name, shape in _shapes(document))),
        "\n## Errors\n",
        'Every refusal is `{"error": {"code", "message", "request_id"}}`. What a client sent is never answered with',
        "500.\n",
        "Every answer has the request's id in its header `X-Request-ID`, as has each line that the server logs of it:",
        "the one that the client sent there, where it is 1 to 64 of `A-Za-z0-9._-`, or else one that is made.\n",
        *_table(("status", "code"), _refusals()),
        "\n## Environment\n",
        "Read once, at the start of the server. A deployment sets those that `deploy.*` configures; the others are",
        "taken from the environment of the command that deploys.\n",
        *_environment(),
        "",
    ]
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "artifacts.md": artifacts_page,
    "http.md": http_page,
}

_SOMETIMES = ("head.onnx", "suspects.json")
_PACKAGE = {
    "weights.safetensors": "the torch model's weights",
    "model.onnx": "the graph that is served: `image` → `logits`, `embedding`, and `maps` where there is `head.onnx`",
    "head.onnx": "the graph of the head, for heat maps: `mean` of `maps` → `logits`, where the network averages maps",
    "spec.json": "what must be known besides, see below",
    "reference.parquet": "the validation pictures as the prediction store would have kept them: what drift is "
    "measured against",
    "golden/golden.json": "pictures beside it, and the answer that every deployment must give to each",
    "suspects.json": "training pictures that probably bear a wrong label, where the backbone was pretrained",
    "MODEL_CARD.md": "what a person should know",
}


def write(folder: Path = DOCS / "reference") -> None:
    """Write every page that has changed."""
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def comments_by_field(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the comments that stand at the end of the fields of a module's classes, by class and field."""
    source = inspect.getsource(module)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: _said(token.string) for token in tokens if token.type == tokenize.COMMENT}
    return {
        node.name: {
            field.target.id: comments[field.end_lineno]
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno in comments
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def _said(comment: str) -> str:
    return comment.lstrip("# ").replace("None:", "`null`:").replace('"', "`")


def _section(prefix: str, model: type[BaseModel], comments: dict[str, dict[str, str]]) -> Iterator[str]:
    inner = [(name, field.annotation) for name, field in _fields(model) if _is_model(field.annotation)]
    rows = [
        (
            f"`{prefix}{name}`",
            _type(field.annotation),
            f"`{_yaml(field.get_default(call_default_factory=True))}`",
            _bounds(field.metadata),
            comments[model.__name__].get(name, ""),
        )
        for name, field in _fields(model)
        if not _is_model(field.annotation)
    ]
    yield from _table(("key", "type", "default", "bounds", ""), rows)
    yield ""
    for name, section in inner:
        yield f"## {prefix}{name}\n"
        yield f"{inspect.cleandoc(section.__doc__ or '')}\n"
        yield from _section(f"{prefix}{name}.", section, comments)


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return list(model.model_fields.items())


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _type(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join("nothing" if part is type(None) else _type(part) for part in get_args(kind))
    if get_origin(kind) is Annotated:
        return _type(get_args(kind)[0])
    if str(get_origin(kind)) == "typing.Literal":
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"list of {_type(parts[0])}" if parts[-1] is ... else f"{len(parts)} × {_type(parts[0])}"
    if get_origin(kind) is dict:
        return f"mapping to {_type(get_args(kind)[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", Any: "any value"}
    return names.get(kind) or getattr(kind, "__name__", str(kind))


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{signs[name]} {value:g}" for item in metadata for name, value in _limits(item) if name in signs)


def _limits(item: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(item, name)) for name in getattr(item, "__slots__", ())]


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    settings = {**command.context_settings, "terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _contexts(found, child, context)


def _artifacts() -> Iterator[tuple[str, str, str]]:
    for file in sorted((ROOT / "steps").glob("[a-z]*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (made := re.match(r"Annotated\[(.+), '(.+)'\]", _returns(node))):
                yield f"`{made[2]}`", f"`{made[1]}`", f"`{node.name}`"


def _returns(node: ast.FunctionDef) -> str:
    return ast.unparse(node.returns) if node.returns else ""


def _doc(file: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""


def _shapes(document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    shapes: dict[str, dict[str, Any]] = document["components"]["schemas"]
    return shapes.items()


def _keys(shape: dict[str, Any]) -> str:
    if shape.get("nullable"):
        return f"{_keys({**shape, 'nullable': False})} or null"
    if "$ref" in shape:
        return f"`{shape['$ref'].rsplit('/', 1)[1]}`"
    if "oneOf" in shape:
        return " or ".join(_keys(option) for option in shape["oneOf"])
    if "properties" in shape:
        return "{" + ", ".join(f"`{name}`: {_keys(value)}" for name, value in shape["properties"].items()) + "}"
    if shape.get("type") == "array":
        return f"[{_keys(shape['items'])} …]"
    return str(shape["type"])


def _body(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        fields = content["multipart/form-data"]["schema"]["properties"]
        return ", ".join(
            f"several `{name}`" if field["type"] == "array" else f"`{name}`" for name, field in fields.items()
        )
    return "".join(_keys(body["schema"]) for body in content.values())


def _answer(operation: dict[str, Any]) -> str:
    return ", ".join(
        _keys(body["schema"]) if kind == "application/json" and "schema" in body else kind
        for kind, body in operation["responses"]["200"]["content"].items()
    )


def _refusals() -> list[tuple[str, str]]:
    from imago.serving.refusal import _OF_UNREADABLE

    found: dict[int, set[str]] = {}
    for code, status in _OF_UNREADABLE.items():
        found.setdefault(status, set()).add(code)
    for file in (ROOT / "imago" / "serving").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(ast.Name("Refusal"), [ast.Constant(int(status)), ast.Constant(str(code)), *_]):
                    found.setdefault(status, set()).add(code)
    return [(str(status), ", ".join(f"`{code}`" for code in sorted(codes))) for status, codes in sorted(found.items())]


def _environment() -> list[str]:
    return [line for line in _doc("imago/serving/service.py").splitlines() if line.startswith(("- ", "  "))]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write()
