"""What guards an endpoint and is kept out of the configuration: its API keys, as digests only, and its limits.

A version that is started again, rolled back to or replaced is guarded as it was, or not started.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import httpx

from imago.errors import DeploymentFailed, ImagoError
from imago.serving.deployment import Guard, Version
from imago.serving.settings import PROBE_HEADER, ServingSettings

KEY = "IMAGO_API_KEY"
PROBE_KEY = "IMAGO_PROBE_KEY"
LIMITS = ("IMAGO_RATE_LIMIT", "IMAGO_KEEP_DAYS", "IMAGO_LOG_FORMAT", "IMAGO_MAX_BATCH")


def renewed(before: Version | None, environment: Mapping[str, str], keys: Path) -> tuple[Guard, dict[str, str]]:
    """Return the guard of a version that is about to serve, and the variables that its server is to be given.

    `keys` is the file of keys with names. A limit that is not set stays what it was. Raises DeploymentFailed where a
    key was asked for so far and none is set now; an empty one opens the endpoint on purpose. Raises ConfigError where
    a limit is none.
    """
    last = before.guard if before else Guard()
    if before and last.key and KEY not in environment:
        raise DeploymentFailed(
            f"{before.tag} asks its clients for a key, which is kept nowhere: set {KEY} to it or to a new one, "
            f"or to nothing (`{KEY}=`) to serve without."
        )
    named = keys.exists()
    if before and last.named and not named and KEY not in environment:
        raise DeploymentFailed(
            f"{before.tag} asks its clients for a key of {keys}, which is gone: put it back, add keys with "
            f"`python run.py deployment key add NAME`, or set {KEY} to nothing (`{KEY}=`) to serve without."
        )
    limits = {name: environment.get(name, last.limits.get(name, "")) for name in LIMITS}
    limits = {name: value for name, value in limits.items() if value}
    check_limits(limits)
    key = environment.get(KEY) or None
    guard = Guard(key=_digest(key, os.urandom(16)) if key else None, named=named, limits=limits)
    return guard, limits | {"IMAGO_KEYS": str(keys), PROBE_KEY: secrets.token_urlsafe(32)}


def check_limits(environment: Mapping[str, str]) -> None:
    """Raise ConfigError where a limit is set to what is none."""
    ServingSettings.from_environment({name: environment[name] for name in LIMITS if name in environment})


def warning(host: str, guard: Guard) -> str | None:
    """Return what to tell whoever lets everybody in: listening beyond this machine, and asking for no key."""
    if guard.key or guard.named or is_loopback(host):
        return None
    return (
        f"warning: it listens on {host}, beyond this machine, and answers everybody who reaches it: "
        "`python run.py deployment key add NAME` makes it ask for a key"
    )


def changed(guard: Guard, environment: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for another guard; what it leaves out asks for nothing."""
    if any(environment.get(name, guard.limits.get(name, "")) != guard.limits.get(name, "") for name in LIMITS):
        return True
    if KEY not in environment:
        return False
    key = environment[KEY]
    if not key or guard.key is None:
        return bool(key) != bool(guard.key)
    salt = bytes.fromhex(guard.key.partition(":")[0])
    return not hmac.compare_digest(guard.key, _digest(key, salt))


def require_closed(url: str, keys: Path) -> None:
    """Raise ImagoError where an endpoint, made before keys had names, would answer without one of this file."""
    answer = httpx.get(f"{url}/info", timeout=5, headers={PROBE_HEADER: "key"}, trust_env=False)
    if answer.status_code != HTTPStatus.UNAUTHORIZED:
        raise ImagoError(
            f"it does not ask for the keys of {keys}: run the training that made it again, its steps are cached and "
            "the Bento is built anew"
        )


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(key: str, salt: bytes) -> str:
    return f"{salt.hex()}:{hashlib.scrypt(key.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"
