"""Nothing calls home unless the user turns it on."""

import os

_SWITCHES = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "BENTOML_DO_NOT_TRACK": "True",
    "GX_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def switch_off() -> None:
    """Turn off the telemetry of every library used, where the user's environment says nothing of it."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
