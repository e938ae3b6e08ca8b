"""Looks at each component of a stack and says what is missing, and what to do about it."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from imago import home
from stack.blueprint import Blueprint, Component

SECONDS = 5.0
_SECRET = re.compile(r"\{\{\s*(?P<name>[\w.-]+?)\.(?P<key>\w+)\s*\}\}")


@dataclass(frozen=True)
class ComponentCheck:
    """Whether a component can be used, and if not, what is wrong and what to do."""

    component: str
    flavor: str
    ok: bool
    problem: str = ""
    remedy: str = ""


Finding = tuple[str, str] | None


def check(plan: Blueprint) -> list[ComponentCheck]:
    """Check every component; each answers within some seconds."""
    found = [_checked(part.type, part.flavor, _look(plan, part)) for part in plan.components]
    orchestrator = plan.component("orchestrator")
    if orchestrator is not None and orchestrator.flavor == "kubernetes":
        found.append(_checked("zenml_server", "zenml", _zenml_server()))
    return found


def _checked(component: str, flavor: str, finding: Finding) -> ComponentCheck:
    problem, remedy = finding or ("", "")
    return ComponentCheck(component, flavor, ok=finding is None, problem=problem, remedy=remedy)


def _look(plan: Blueprint, part: Component) -> Finding:
    if part.missing:
        return f"{', '.join(part.missing)} not set", f"export {part.missing[0]}={_EXAMPLES.get(part.missing[0], '…')}"
    package = _PACKAGES.get(part.flavor)
    if package and importlib.util.find_spec(package) is None:
        extra = {"s3fs": "aws", "gcsfs": "gcp", "adlfs": "azure", "kubernetes": "kubernetes"}.get(package)
        what = f"'.[{extra}]'" if extra else package
        return f"the package {package} is not installed", f"pip install {what}"
    if lost := _lost_secret(part):
        return f"ZenML has no secret {lost[0]}.{lost[1]}", f"zenml secret create {lost[0]} --{lost[1]}=…"
    looks: dict[str, Callable[[], Finding]] = {
        "orchestrator/local_docker": lambda: _docker() or _image(plan),
        "image_builder/local": _docker,
        "orchestrator/kubernetes": lambda: _kubernetes(str(part.config["kubernetes_context"])),
        "artifact_store/local": _zenml_store,
        "experiment_tracker/mlflow": lambda: _mlflow(str(part.config["tracking_uri"])),
        "container_registry/default": lambda: _registry(str(part.config["uri"])),
        "model_deployer/imago_bentoml": lambda: _writable(home.home() / "deployments"),
    }
    look = looks.get(f"{part.type}/{part.flavor}")
    return look() if look else None


def _lost_secret(part: Component) -> tuple[str, str] | None:
    from zenml.client import Client

    for value in part.config.values():
        if reference := _SECRET.fullmatch(str(value)):
            try:
                known = Client().get_secret(reference["name"], allow_partial_name_match=False).secret_values
            except KeyError:
                known = {}
            if reference["key"] not in known:
                return reference["name"], reference["key"]
    return None


def _docker() -> Finding:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=int(SECONDS)).ping()
    except (DockerException, OSError) as error:
        return f"no Docker engine answers ({' '.join(str(error).split())[:120]})", "start it: `systemctl start docker`"
    return None


def _image(plan: Blueprint) -> Finding:
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        docker.from_env(timeout=int(SECONDS)).images.get(plan.image)
    except ImageNotFound:
        return f"the image {plan.image} is not there", f"docker build -t {plan.image} -f stack/Dockerfile ."
    except DockerException as error:
        return f"the image {plan.image} cannot be looked up ({error})", "docker images"
    return None


def _kubernetes(context: str) -> Finding:
    if shutil.which("kubectl") is None:
        return "kubectl is not installed", "install kubectl and put it on the PATH"
    contexts = _run("kubectl", "config", "get-contexts", "-o", "name").splitlines()
    if context not in contexts:
        return f"kubectl knows no context '{context}'", f"set IMAGO_KUBERNETES_CONTEXT to one of {contexts or 'yours'}"
    if not _run("kubectl", "--context", context, "version", f"--request-timeout={SECONDS:.0f}s", "-o", "json"):
        return f"the cluster of context '{context}' does not answer", f"kubectl --context {context} cluster-info"
    return None


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 2, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ""


def _mlflow(uri: str) -> Finding:
    if uri.startswith("sqlite:///"):
        return _writable(Path(uri.removeprefix("sqlite:///")).parent)
    if uri.startswith("http"):
        return _answers(f"{uri.rstrip('/')}/health", f"the MLflow server at {urlsplit(uri).hostname}")
    return None


def _registry(uri: str) -> Finding:
    host = uri.split("/")[0]
    name = host.rpartition(":")[0] or host
    scheme = "http" if name in {"localhost", "127.0.0.1"} else "https"
    return _answers(f"{scheme}://{host}/v2/", f"the registry at {host}")


def _answers(url: str, who: str) -> Finding:
    import httpx

    try:
        httpx.get(url, timeout=SECONDS)
    except httpx.HTTPError as error:
        return f"{who} does not answer ({type(error).__name__})", "see that it runs and can be reached from here"
    return None


def _zenml_store() -> Finding:
    from zenml.config.global_config import GlobalConfiguration

    return _writable(Path(GlobalConfiguration().local_stores_path))


def _zenml_server() -> Finding:
    from zenml.client import Client

    if Client().zen_store.is_local_store():
        return "pods cannot reach the ZenML database on this machine", "zenml login https://your-zenml-server"
    return None


def _writable(folder: Path) -> Finding:
    standing = folder
    while not standing.exists():
        standing = standing.parent
    if not os.access(standing, os.W_OK):
        return f"{standing} cannot be written to", f"chown or chmod {standing}, or set IMAGO_HOME to another folder"
    return None


_PACKAGES = {
    "imago_bentoml": "bentoml",
    "mlflow": "mlflow",
    "local_docker": "docker",
    "kubernetes": "kubernetes",
    "s3": "s3fs",
    "gcp": "gcsfs",
    "azure": "adlfs",
}
_EXAMPLES = {
    "IMAGO_KUBERNETES_CONTEXT": "my-cluster",
    "IMAGO_BUCKET": "s3://my-bucket/imago",
    "IMAGO_REGISTRY": "registry.example.com/team",
    "IMAGO_MLFLOW": "https://mlflow.example.com",
}
