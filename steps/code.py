"""Which files a step's result depends on, so that editing any of them makes the step run again.

ZenML's cache sees only the step function's own source; what it calls in `imago/` has to be named.
"""

import hashlib
from importlib.metadata import version

from zenml.config.cache_policy import CachePolicy

from imago.dependencies import digest_of, sources_of
from imago.home import ROOT

_LIBRARIES = (
    "torch", "timm", "pytorch-lightning", "onnxruntime", "numpy", "scipy", "scikit-learn", "cleanlab", "pillow",
    "simplejpeg", "great-expectations", "bentoml",
)  # fmt: skip


def cached_by(*modules: str, reads: tuple[str, ...] = ()) -> CachePolicy:
    """Return the policy of a step that calls these modules: its cache follows their code, all they import, and the
    libraries that results depend on.

    `reads` names other files that decide the result, from the root.
    """
    return CachePolicy(file_dependencies=[*code_of(*modules), *reads], cache_func=libraries)


def libraries() -> str:
    """Return the versions of what computes: another may find something else."""
    return " ".join(f"{name} {version(name)}" for name in _LIBRARIES)


def key_of(*decided: object, code: str, packages: tuple[str, ...]) -> str:
    """Return the name of a folder of work that may go on later: by what decides it, its code and its packages."""
    state = (decided, digest_of(code_of(code)), [version(package) for package in packages])
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def code_of(*modules: str) -> list[str]:
    """Return the files of these modules and of every `imago` module and template that they import, from the root.

    Raises ValueError for a module that is not there.
    """
    found: set[str] = set()
    for module in modules:
        files = sources_of(module)
        if not files:
            raise ValueError(f"{module} is not a module of imago")
        found.update(files)
    for file in [ROOT / name for name in found]:
        found.update(str(template.relative_to(ROOT)) for template in file.parent.glob(f"{file.stem}*.html"))
    return sorted(found)
