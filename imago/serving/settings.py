"""How one endpoint is set up: read once from the environment, by the names that `service` lists."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from imago.errors import ConfigError

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[str, ...] = get_args(LogFormat)

PROBE_HEADER = "X-Imago-Probe"
"""Marks a request that is no customer's, such as a rollout's golden samples: it is answered, and not kept.

Believed of who brings a key of the endpoint's environment; a client could hide behind it otherwise.
"""


@dataclass(frozen=True)
class ServingSettings:
    """The options of an endpoint, and the bounds that it works within."""

    version: str | None = None
    predictions: Path | None = None  # SQLite file; None: nothing is kept
    keep_days: int = 90  # how long a prediction is kept
    top_k: int = 5
    max_upload_bytes: int = 10_000_000  # a picture
    max_pixels: int = 50_000_000  # a picture
    max_pictures: int = 64  # a batch
    max_batch: int | None = None  # pictures of requests that wait, through the graph at once; None: as measured, or 1
    api_key: str | None = None
    keys: Path | None = None  # the file of named keys; None: there are none
    probe_key: str | None = None  # tells the rollout's probes from clients, and lets them in where a key is asked for
    shadow: Path | None = None  # the file that says which version is asked as well, unseen; None: none ever is
    shelf: Path | None = None  # the folder of the model's reports; None: they are not shown
    hosts: tuple[str, ...] = ()  # names that it may be asked for by; (): any
    cors_origins: tuple[str, ...] = ()  # whose pages may ask from a browser
    log_format: LogFormat = "text"
    rate_limit: float = 0.0  # requests a second and key, or address; 0: no limit
    rates: Path | None = None  # the file in which the workers of one server count for it; None: each counts for itself
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For is believed
    max_waiting: int = 128  # requests of one worker that were read whole and are not yet answered
    max_held_bytes: int = 256_000_000  # of bodies in one worker, from their arrival to the answer; see `held_bytes`
    max_connections: int = 1000  # of one worker
    upload_seconds: float = 30.0
    queue_seconds: float = 15.0

    @property
    def max_body_bytes(self) -> int:
        """What a single picture's request may weigh: the picture, and the form around it."""
        return self.max_upload_bytes + 65_536

    @property
    def max_batch_bytes(self) -> int:
        """What a batch may weigh in all."""
        return 4 * self.max_upload_bytes + 65_536

    @property
    def held_bytes(self) -> int:
        """What the bodies in one worker may weigh together: never so little that a client's batch were too much."""
        return max(self.max_held_bytes, 2 * self.max_batch_bytes)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServingSettings":
        """Read `IMAGO_*` variables; one that is empty counts as absent. Raises ConfigError."""
        predictions, keys = environment.get("IMAGO_PREDICTIONS"), environment.get("IMAGO_KEYS")
        shelf, shadow = environment.get("IMAGO_SHELF"), environment.get("IMAGO_SHADOW")
        return cls(
            version=environment.get("IMAGO_MODEL_VERSION") or None,
            predictions=Path(predictions) if predictions else None,
            keep_days=_whole(environment, "IMAGO_KEEP_DAYS", cls.keep_days),
            top_k=_whole(environment, "IMAGO_TOP_K", cls.top_k),
            max_upload_bytes=_whole(environment, "IMAGO_MAX_UPLOAD_BYTES", cls.max_upload_bytes),
            max_pixels=_whole(environment, "IMAGO_MAX_PIXELS", cls.max_pixels),
            max_batch=_whole(environment, "IMAGO_MAX_BATCH", 0) or None,
            max_connections=_whole(environment, "IMAGO_MAX_CONNECTIONS", cls.max_connections),
            api_key=environment.get("IMAGO_API_KEY") or None,
            keys=Path(keys) if keys else None,
            probe_key=environment.get("IMAGO_PROBE_KEY") or None,
            shadow=Path(shadow) if shadow else None,
            shelf=Path(shelf) if shelf else None,
            hosts=tuple(environment.get("IMAGO_HOSTS", "").lower().split()),
            cors_origins=tuple(environment.get("IMAGO_CORS_ORIGINS", "").split()),
            log_format=_log_format(environment),
            rate_limit=_number(environment, "IMAGO_RATE_LIMIT", cls.rate_limit),
            trusted_proxies=_networks(environment, "IMAGO_TRUSTED_PROXIES"),
        )


def workers_from_environment(environment: Mapping[str, str]) -> int:
    """Return how many worker processes `bentoml serve` is to start. Raises ConfigError."""
    return _whole(environment, "IMAGO_WORKERS", 1)


def _log_format(environment: Mapping[str, str]) -> LogFormat:
    text = environment.get("IMAGO_LOG_FORMAT") or ServingSettings.log_format
    if text not in LOG_FORMATS:
        raise ConfigError(f"The environment variable IMAGO_LOG_FORMAT is '{text}'; it must be 'text' or 'json'.")
    return "json" if text == "json" else "text"


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"The environment variable {name} is '{text}'; it must be a whole number from 1 on.")
    return int(text)


def _networks(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    given = tuple(environment.get(name, "").split())
    for network in given:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(
                f"The environment variable {name} has '{network}' in it, which is neither an address nor a network."
            ) from error
    return given


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"The environment variable {name} is '{text}'; it must be a number from 0 on.")
    return value
