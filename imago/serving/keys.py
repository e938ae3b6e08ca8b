"""Who may ask: the key that a request brings, checked against digests and named."""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers

from imago.errors import ImagoError
from imago.serving.refusal import Refusal

LOOK_SECONDS = 1.0  # a revoked key is refused that much later at most

logger = logging.getLogger("imago.keys")


class ApiKey(BaseModel):
    """What is kept of a key: never the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str  # SHA-256, in hexadecimal digits
    created: str  # ISO 8601, UTC
    revoked: str | None = None  # ISO 8601, UTC; None: it is good


class KeyList(BaseModel):
    """The file of keys. A file without one good key opens nothing: it lets nobody in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()


class Keys:
    """The keys of one endpoint: those of its environment, and those of a file that may change while it serves."""

    def __init__(
        self,
        file: Path | None = None,
        *,
        fixed: str | None = None,
        probe: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fixed` is `IMAGO_API_KEY`. `probe` lets a rollout in where others are asked for a key, and asks nobody.

        Raises ImagoError for a file that cannot be read.
        """
        self.file = file
        self._clock = clock
        self._own = {name: digest_of(key) for name, key in (("environment", fixed), ("probe", probe)) if key}
        self._closed = fixed is not None
        self._listed: Mapping[str, str] = {}
        self._stamp: tuple[int, ...] | None = None
        self._look_at = 0.0
        if file is not None:
            self._look(file)

    @property
    def asked_for(self) -> bool:
        """Whether nobody is answered without a key."""
        self._refresh()
        return self._closed

    def name_of(self, headers: Headers) -> str | None:
        """Return whose key a request brings, None where nobody is asked for one.

        It comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`, and is compared with every digest in the same time,
        whichever is right. Raises Refusal.
        """
        if not self.asked_for:
            return None
        given = _given(headers)
        if not given:
            raise Refusal(401, "no_key", "A key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        found = _whose(given, {**self._own, **self._listed})
        if found is None:
            raise Refusal(401, "wrong_key", "The key is not the right one.")
        return found

    def are_own(self, headers: Headers) -> bool:
        """Tell whether a request brings a key of the endpoint's environment: the deployer's, or its probes'."""
        return _whose(_given(headers), self._own) is not None

    def _refresh(self) -> None:
        now = self._clock()
        if self.file is None or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            self._look(self.file)
        except ImagoError as error:
            logger.error("%s The keys that were read last stay in force.", error)

    def _look(self, file: Path) -> None:
        try:
            found = file.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            if self._stamp is None:
                return
            self._stamp = None
            raise ImagoError(f"The keys in {file} are gone.") from None  # who took them away opens nothing
        except OSError as error:
            raise ImagoError(f"The keys in {file} cannot be read: {error.strerror}.") from error
        if stamp == self._stamp:
            return
        listed = read_keys(file)
        self._stamp, self._closed = stamp, True
        self._listed = {f"key {key.name}": key.digest for key in listed if key.revoked is None}


def _given(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def _whose(given: str, digests: Mapping[str, str]) -> str | None:
    digest, found = digest_of(given), None
    for name, known in digests.items():
        if hmac.compare_digest(digest, known):
            found = name
    return found


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return what a file of keys holds, nothing where there is none. Raises ImagoError where it cannot be read."""
    try:
        return KeyList.model_validate_json(file.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ImagoError(f"The keys in {file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        what = error.errors(include_input=False)[0]["msg"]
        raise ImagoError(f"{file} is no list of keys ({what}): remove it, and add the keys anew.") from error


def digest_of(key: str) -> str:
    """Return a key's SHA-256.

    A key is 256 random bits: nobody guesses it from a digest, however quick, and a slow password hash would only
    slow every request down.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
