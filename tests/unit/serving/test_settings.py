"""What a deployer may set, and what is refused."""

from pathlib import Path

import pytest

from imago.errors import ConfigError
from imago.serving.settings import ServingSettings, workers_from_environment


def test_every_variable_is_read() -> None:
    settings = ServingSettings.from_environment(
        {
            "IMAGO_PREDICTIONS": "/somewhere/predictions.sqlite",
            "IMAGO_KEEP_DAYS": "30",
            "IMAGO_MODEL_VERSION": "12",
            "IMAGO_TOP_K": "3",
            "IMAGO_MAX_UPLOAD_BYTES": "2000",
            "IMAGO_MAX_PIXELS": "1000",
            "IMAGO_MAX_BATCH": "2",
            "IMAGO_MAX_CONNECTIONS": "50",
            "IMAGO_API_KEY": "secret",
            "IMAGO_KEYS": "/somewhere/keys.json",
            "IMAGO_PROBE_KEY": "probe",
            "IMAGO_RATE_LIMIT": "2.5",
            "IMAGO_CORS_ORIGINS": "https://a.example http://b:8000",
            "IMAGO_TRUSTED_PROXIES": "10.0.0.5 fd00::/8",
            "IMAGO_LOG_FORMAT": "json",
        }
    )
    assert settings == ServingSettings(
        version="12", predictions=Path("/somewhere/predictions.sqlite"), keep_days=30, top_k=3, max_upload_bytes=2000,
        max_pixels=1000, max_batch=2, max_connections=50, api_key="secret", keys=Path("/somewhere/keys.json"),
        probe_key="probe", rate_limit=2.5, log_format="json", cors_origins=("https://a.example", "http://b:8000"),
        trusted_proxies=("10.0.0.5", "fd00::/8"),
    )  # fmt: skip


def test_absent_and_empty_are_the_same() -> None:
    empty = dict.fromkeys(("IMAGO_PREDICTIONS", "IMAGO_MODEL_VERSION", "IMAGO_TOP_K", "IMAGO_API_KEY"), "")
    assert ServingSettings.from_environment(empty) == ServingSettings.from_environment({}) == ServingSettings()


@pytest.mark.parametrize("value", ["0", "-1", "five", "1.5", "²"])
def test_a_number_that_is_none_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match="IMAGO_TOP_K"):
        ServingSettings.from_environment({"IMAGO_TOP_K": value})


@pytest.mark.parametrize("value", ["-1", "fast", "nan", "inf"])
def test_a_rate_that_is_none_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match="IMAGO_RATE_LIMIT"):
        ServingSettings.from_environment({"IMAGO_RATE_LIMIT": value})


def test_a_log_format_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="IMAGO_LOG_FORMAT is 'xml'; it must be 'text' or 'json'"):
        ServingSettings.from_environment({"IMAGO_LOG_FORMAT": "xml"})


@pytest.mark.parametrize("value", ["proxy", "*", "10.0.0.5/24", "10.0.0.5,10.0.0.6"])
def test_a_proxy_that_is_no_address_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match="IMAGO_TRUSTED_PROXIES has '"):
        ServingSettings.from_environment({"IMAGO_TRUSTED_PROXIES": f"10.0.0.1 {value}"})


def test_workers_are_one_where_nothing_is_said() -> None:
    assert workers_from_environment({}) == 1
    assert workers_from_environment({"IMAGO_WORKERS": "4"}) == 4


def test_a_whole_batch_may_always_be_held() -> None:
    assert ServingSettings().held_bytes == 256_000_000
    assert ServingSettings(max_upload_bytes=100_000_000).held_bytes > 400_000_000
