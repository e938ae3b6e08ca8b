"""Which files a step's result depends on, so that editing any of them makes the step run again.

ZenML's cache sees only the step function's own source; what it calls in `imago/` has to be named.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from zenml.config.cache_policy import CachePolicy

ROOT = Path(__file__).resolve().parent.parent


def cached_by(*modules: str, reads: tuple[str, ...] = ()) -> CachePolicy:
    """Return the policy of a step that calls these modules: its cache follows their code, and all they import.

    `reads` names other files that decide the result, from the root.
    """
    return CachePolicy(file_dependencies=[*code_of(*modules), *reads])


def code_of(*modules: str) -> list[str]:
    """Return the files of these modules and of every `imago` module and template that they import, from the root.

    Raises ValueError for a module that is not there.
    """
    found: dict[Path, None] = {}
    waiting: list[Path] = []
    for module in modules:
        files = list(_files(module))
        if not files:
            raise ValueError(f"{module} is not a module of imago")
        waiting.extend(files)
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found[file] = None
        if file.suffix == ".py":
            waiting.extend(_imported(file))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _imported(file: Path) -> Iterator[Path]:
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _files(node.module)
            for alias in node.names:
                yield from _files(f"{node.module}.{alias.name}")
    yield from (template for template in file.parent.glob(f"{file.stem}*.html") if template.is_file())


def _files(module: str) -> Iterator[Path]:
    if module != "imago" and not module.startswith("imago."):
        return
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            yield candidate
