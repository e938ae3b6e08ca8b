"""What every test shares: no telemetry, torchvision importable, and workspaces that leave nothing behind."""

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: tests share the cores with others

import pytest

import imago.torchvision_compat  # noqa: F401  (before anything that imports torchvision)
from tests.workspace import Workspace


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a test reads, writes and reports out of the user's own home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("IMAGO_REPORTS", str(tmp_path_factory.mktemp("reports")))
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the project with stores, ports and processes of its own, ended with the module."""
    place = Workspace(tmp_path_factory.mktemp("workspace"))
    try:
        yield place
    finally:
        place.close()
