"""Turns a model package into a Bento that stands alone: the model pinned by its exact tag, the code beside it."""

import hashlib
import logging
import re
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from imago import telemetry
from imago.dependencies import sources_of
from imago.errors import ConfigError, ImagoError
from imago.home import ROOT
from imago.quiet import quiet
from imago.serving.answers import TESTED, Tested
from imago.serving.package import ModelPackage

MODULE = "imago.serving.service"
SERVICE = f"{MODULE}:Endpoint"
PAGE = "imago/serving/page"
MIRROR = "imago/serving/mirror.py"
REQUIREMENTS = (
    "httptools",
    "numpy",
    "onnxruntime",
    "pillow",
    "pydantic",
    "python-multipart",
    "prometheus-client",
    "python-json-logger",
    "simplejpeg",
)

_FINGERPRINT = "imago.fingerprint"
_TAG_PART = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def build_bento(
    package: ModelPackage, *, name: str, version: str, card: str | None = None, tested: Tested | None = None
) -> str:
    """Put a package into BentoML's stores (under `BENTOML_HOME`) and return the exact tag, `name:version-code`.

    The tag's end is a digest of the endpoint's code, so that a Bento, which may be serving, is never replaced: the
    same package and code give the same one, other code another. It is described by `card`, or by the package's own,
    and bears how the model was `tested`.
    Raises ConfigError for a name or version that a tag cannot hold, and ImagoError where the tag stands for another
    package already.
    """
    telemetry.switch_off()
    import bentoml
    from bentoml.exceptions import BentoMLException

    model = exact_tag(name, version)
    tag = exact_tag(name, f"{version}-{code_digest()[:8]}")
    labels = {_FINGERPRINT: package.fingerprint}
    try:
        _save_model(package, model, labels)
        existing = _existing(bentoml.bentos, tag)
        if existing is not None:
            _require_same(existing.info.labels, labels, f"Bento {tag}")
            if _holds_the_code(Path(existing.path)):
                return tag
        _clear(bentoml.bentos, tag)
        _build(card or package.card, tag, model, labels | ({TESTED: tested.model_dump_json()} if tested else {}))
    except (BentoMLException, OSError) as error:
        raise ImagoError(f"The Bento {tag} cannot be built: {error}") from error
    return tag


def is_built(tag: str) -> bool:
    """Tell whether a whole Bento of this exact tag is in the store."""
    telemetry.switch_off()
    import bentoml

    return _existing(bentoml.bentos, tag) is not None


def mirrors(tag: str) -> bool:
    """Tell whether the endpoint in a Bento can ask a shadow; one that was built before there were any cannot."""
    telemetry.switch_off()
    import bentoml

    existing = _existing(bentoml.bentos, tag)
    return existing is not None and Path(existing.path, "src", MIRROR).is_file()


def exact_tag(name: str, version: str) -> str:
    """Return `name:version`, in lower case. Raises ConfigError for what BentoML takes for no tag."""
    for what, text in (("model name", name), ("version", version)):
        if not _TAG_PART.fullmatch(text.lower()) or text.lower() == "latest":
            raise ConfigError(
                f"The {what} '{text}' cannot name a Bento: use up to 63 letters, digits, '-', '_' and '.', beginning "
                "and ending with a letter or digit, and not 'latest'."
            )
    return f"{name.lower()}:{version.lower()}"


def endpoint_sources() -> list[str]:
    """Return the files that the endpoint runs on, relative to the project; nothing else of it goes into a Bento."""
    return sources_of(MODULE) + sorted(f"{PAGE}/{file.name}" for file in (ROOT / PAGE).iterdir() if file.is_file())


def code_digest() -> str:
    """Return a digest of the files that the endpoint runs on: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for source in endpoint_sources():
        digest.update(source.encode())
        digest.update((ROOT / source).read_bytes())
    return digest.hexdigest()[:16]


def _save_model(package: ModelPackage, tag: str, labels: dict[str, str]) -> None:
    import bentoml
    from bentoml.models import ModelContext

    existing = _existing(bentoml.models, tag)
    if existing is not None:
        _require_same(existing.info.labels, labels, f"model {tag} in BentoML's store")
        if _is_whole(ModelPackage(Path(existing.path)), package):
            return
    _clear(bentoml.models, tag)  # of which an interrupted build may have left a part
    context = ModelContext(framework_name="onnxruntime", framework_versions={"onnxruntime": installed("onnxruntime")})
    with bentoml.models.create(tag, module="imago.serving", labels=labels, context=context, signatures={}) as model:
        shutil.copytree(package.path, model.path, dirs_exist_ok=True)


def _build(card: str, tag: str, model: str, labels: dict[str, str]) -> None:
    import bentoml

    name, _, version = tag.partition(":")
    with tempfile.TemporaryDirectory(prefix="imago-bento-") as context:
        for source in endpoint_sources():
            target = Path(context, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, target)
        with quiet("bentoml", level=logging.WARNING):
            bentoml.bentos.build(
                SERVICE,
                name=name,
                version=version,
                labels=labels,
                description=card,
                include=["imago/"],
                models=[model],
                python={"packages": [f"{one}=={installed(one)}" for one in REQUIREMENTS], "lock_packages": False},
                build_ctx=context,
            )


def _existing(store: Any, tag: str) -> Any:
    """Return what the store has whole under a tag, or None. Raises ImagoError where it cannot be read.

    `store.get` would also give what it has under a longer tag.
    """
    from bentoml.exceptions import BentoMLException

    try:
        return next(iter(store.list(tag)), None)
    except BentoMLException:  # it was begun, and has no description yet
        return None
    except OSError as error:
        raise ImagoError(f"BentoML's store cannot be read: {error}") from error


def _clear(store: Any, tag: str) -> None:
    """Delete what the store has under a tag, if it has."""
    from bentoml.exceptions import NotFound

    with suppress(NotFound):
        store.delete(tag)


def _is_whole(stored: ModelPackage, package: ModelPackage) -> bool:
    """Tell whether a stored package has all its files, each as long as the one that it is a copy of."""
    files = [path.relative_to(package.path) for path in package.path.rglob("*") if path.is_file()]
    return all(_size(stored.path / file) == _size(package.path / file) for file in files)


def _holds_the_code(bento: Path) -> bool:
    return all(_size(bento / "src" / source) == _size(ROOT / source) for source in endpoint_sources())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _require_same(found: dict[str, str], wanted: dict[str, str], what: str) -> None:
    if found.get(_FINGERPRINT) != wanted[_FINGERPRINT]:
        raise ImagoError(
            f"The {what} holds another model ({found.get(_FINGERPRINT)}, not {wanted[_FINGERPRINT]}): a version is "
            "never replaced; take a new one."
        )
