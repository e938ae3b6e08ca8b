"""Finds the files of this project that a module runs on, by reading its import statements."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from imago.home import ROOT

PROJECT = "imago"


def sources_of(module: str, root: Path = ROOT) -> list[str]:
    """Return the files of a module and of all in `imago` that it imports, also inside functions, relative to `root`."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name, root)
        if file is None or file in found:
            continue
        found.add(file)
        parents = [name.rpartition(".")[0]] if "." in name else []
        waiting += [*parents, *_imports((root / file).read_text(encoding="utf-8"))]
    return sorted(found)


def digest_of(files: list[str], root: Path = ROOT) -> str:
    """Return a digest of what is in files, such as the code that something kept between runs was made by."""
    contents = [(root / file).read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def _file(name: str, root: Path) -> str | None:
    path = name.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file()), None)


@cache
def _imports(text: str) -> tuple[str, ...]:
    return tuple(name for name in _imported(ast.parse(text)) if name.split(".")[0] == PROJECT)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
