"""Gives out and revokes API keys. The file of their digests is what every endpoint deployed from here looks at."""

import os
import re
import secrets
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from imago import home
from imago.errors import ConfigError, did_you_mean
from imago.serving.deployment import now
from imago.serving.keys import ApiKey, KeyList, digest_of, read_keys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def path() -> Path:
    """Return where the file is, there or not."""
    return home.home() / "keys.json"


def listed() -> tuple[ApiKey, ...]:
    """Return all keys, the revoked ones too, in the order in which they were added."""
    return read_keys(path())


def add(name: str) -> tuple[ApiKey, str]:
    """Make a key: what is kept of it, and the key, which is kept nowhere. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot name a key: use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or "
            "digit."
        )
    with _locked():
        known = listed()
        if any(key.name == name and key.revoked is None for key in known):
            raise ConfigError(f"There is a key '{name}': choose another name, or revoke it first.")
        secret = f"imago_{secrets.token_urlsafe(32)}"  # 256 bits
        key = ApiKey(name=name, digest=digest_of(secret), created=now())
        _write((*(one for one in known if one.name != name), key))
    return key, secret


def revoke(name: str) -> ApiKey:
    """Let a key open nothing any more. Raises ConfigError where there is none of that name, or it is revoked."""
    with _locked():
        known = listed()
        good = [key.name for key in known if key.revoked is None]
        if name not in good:
            raise ConfigError(f"There is no key '{name}' to revoke.{did_you_mean(name, good)}")
        revoked = {key.name: key.model_copy(update={"revoked": now()}) for key in known if key.name == name}
        _write(tuple(revoked.get(key.name, key) for key in known))
    return revoked[name]


def _locked() -> FileLock:
    return FileLock(path().with_suffix(".lock"), timeout=10)


def _write(keys: tuple[ApiKey, ...]) -> None:
    """Replace the file in one step; none but its owner may read it, from its first byte on."""
    partial = path().with_name(f".keys.{uuid4().hex[:8]}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(KeyList(keys=keys).model_dump_json(indent=2).encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path())
    finally:
        partial.unlink(missing_ok=True)
