"""Nothing calls home, unless the user's environment says otherwise."""

import os
import subprocess
import sys


def test_telemetry_is_off_in_every_process_that_imports_imago() -> None:
    code = "import imago, os; print(os.environ['ZENML_ANALYTICS_OPT_IN'], os.environ['BENTOML_DO_NOT_TRACK'])"
    clean = {name: value for name, value in os.environ.items() if name not in {"ZENML_ANALYTICS_OPT_IN"}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.split() == ["false", "True"]


def test_what_the_user_set_stays() -> None:
    code = "import imago, os; print(os.environ['ZENML_ANALYTICS_OPT_IN'])"
    chosen = {**os.environ, "ZENML_ANALYTICS_OPT_IN": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=chosen, check=True)
    assert done.stdout.strip() == "true"
