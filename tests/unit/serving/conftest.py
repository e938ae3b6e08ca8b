"""A deployment of a made-up model by the real supervisor: real processes, sockets and signals."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from imago.config import DeployConfig
from imago.serving import deployment, processes
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment
from tests.workspace import free_port

TINY_WORKER = Path(__file__).with_name("tiny_worker.py")
BROKEN = {
    "wrong": "golden sample 0.jpg was answered 'cat', not 'moth'",
    "liar": "it says it is moths:0, not moths:2",
    "babbler": "golden sample 0.jpg was answered with something else",
    "dead": "its server process ended while starting",
}


class House:
    """A deployment called `moths`, whose versions behave as a test says."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.behaviour: dict[str, str] = {}
        self.config = DeployConfig(port=free_port(), timeout_seconds=10, workers=1)
        self.package = ModelPackage(folder / "package")
        (folder / "package" / "golden").mkdir(parents=True)
        (folder / "package" / "golden" / "0.jpg").write_bytes(b"a picture")
        golden = [{"file": "0.jpg", "label": "moth", "probability": 1.0}]
        (folder / "package" / "golden" / "golden.json").write_text(json.dumps(golden))
        self.moths = self.named("moths")

    def named(self, name: str, by: str = "") -> Deployment:
        return Deployment(
            name, by=by, on_progress=self.lines.append, command=self.command, package=lambda _: self.package
        )

    def command(self, tag: str) -> list[str]:
        return [sys.executable, "-S", str(TINY_WORKER), tag, self.behaviour.get(tag, "good")]

    def deploy(self, version: int, **changes: object) -> deployment.Status:
        return self.moths.deploy(f"moths:{version}", self.config.model_copy(update=changes))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.port}"

    def version(self) -> str:
        return httpx.post(f"{self.url}/predict", content=b"x").json()["model"]["version"]


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    house = House(tmp_path)
    yield house
    for name in deployment.names():
        state = deployment.read(name)
        known = [one.process for one in (state.current, state.shadow) if one and one.process]
        for process in [*state.leftover, *known]:
            processes.end(process, grace=0.5)


@pytest.fixture(params=BROKEN.items(), ids=BROKEN)
def broken(request):
    """How `moths:2` behaves that must not be deployed, and the reason that is given."""
    return request.param
