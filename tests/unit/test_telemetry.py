"""Nothing calls home, unless the user's environment says otherwise."""

import json
import os
import subprocess
import sys

SWITCHES = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "BENTOML_DO_NOT_TRACK": "True",
    "GX_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
SHOW = f"import imago, json, os; print(json.dumps({{name: os.environ[name] for name in {list(SWITCHES)}}}))"


def switches(**chosen: str) -> dict[str, str]:
    """What the switches are in a new process that imports imago."""
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES} | chosen
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def test_telemetry_is_off_in_every_process_that_imports_imago() -> None:
    assert switches() == SWITCHES


def test_what_the_user_set_stays() -> None:
    assert switches(ZENML_ANALYTICS_OPT_IN="true") == {**SWITCHES, "ZENML_ANALYTICS_OPT_IN": "true"}
