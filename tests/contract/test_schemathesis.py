"""Schemathesis, which makes requests up from the endpoint's own description, finds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imago.monitoring.prediction_store import PredictionStore
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening
from tests.packages import make_package
from tests.workspace import ROOT

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
KEY = "open-sesame"  # as in schemathesis.toml
EXAMPLES = "6"  # requests that are made up for each route, beside the edges of its schema


@pytest.mark.parametrize(
    ("key", "phases"),
    [(None, "examples,coverage,fuzzing,stateful"), (KEY, "examples,coverage")],
    ids=["open", "guarded"],
)
def test_nothing_is_found(tmp_path: Path, key: str | None, phases: str) -> None:
    runtime = Runtime(make_package(tmp_path / "package"))
    store = PredictionStore(tmp_path / "predictions.sqlite")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "MODEL_CARD.md").write_text("# moths")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    command += ["--max-examples", EXAMPLES, "--seed", "1", "--no-color", "--generation-database", "none"]
    command += ["--phases", phases]
    if key is not None:  # the classes are not described there, so that no label is made up that is taken
        command += ["--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
    with listening(runtime, ServingSettings(predictions=store.path, shelf=shelf, api_key=key)) as url:
        done = subprocess.run(
            [*command, f"{url}/docs.json"],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Selected: 12/12" in done.stdout
    assert "Tested: 12" in done.stdout
    assert "No issues found" in done.stdout
