"""What guards an endpoint and is kept out of the configuration: its API key, as a digest only, and its limits.

A version that is started again, rolled back to or replaced is guarded as it was, or not started.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping

from imago.errors import DeploymentFailed
from imago.serving.deployment import Guard, Version

KEY = "IMAGO_API_KEY"
LIMITS = ("IMAGO_RATE_LIMIT", "IMAGO_KEEP_DAYS")


def renewed(before: Version | None, environment: Mapping[str, str]) -> tuple[Guard, dict[str, str]]:
    """Return the guard of a version that is about to serve, and the variables that its server is to be given.

    A limit that is not set stays what it was. Raises DeploymentFailed where a key was asked for so far and none is
    set now; an empty one opens the endpoint on purpose.
    """
    last = before.guard if before else Guard()
    if before and last.key and KEY not in environment:
        raise DeploymentFailed(
            f"{before.tag} asks its clients for a key, which is kept nowhere: set {KEY} to it or to a new one, "
            f"or to nothing (`{KEY}=`) to serve without."
        )
    limits = {name: environment.get(name, last.limits.get(name, "")) for name in LIMITS}
    limits = {name: value for name, value in limits.items() if value}
    key = environment.get(KEY) or None
    return Guard(key=_digest(key, os.urandom(16)) if key else None, limits=limits), limits


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


def _digest(key: str, salt: bytes) -> str:
    return f"{salt.hex()}:{hashlib.scrypt(key.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"
