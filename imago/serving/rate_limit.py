"""How often a client may ask: one count of it over all workers of a server, in a small file that they share."""

import fcntl
import hashlib
import logging
import math
import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imago.serving.refusal import Refusal

CLIENTS = 16_384
_NEAR = 8  # places where a client may stand
_ONE = struct.Struct("=Qd")  # a digest of who it is, and when the bucket is full
_SOME = struct.Struct("=" + "Qd" * _NEAR)
_BYTES = _ONE.size * (CLIENTS + _NEAR)

logger = logging.getLogger("imago.rate_limit")


class RateLimit:
    """A bucket of tokens for each client, so many a second, twice as many at once; none where the rate is 0.

    Of a bucket only the moment is kept at which it will be full again, by a clock that all processes share. It may be
    forgotten from then on, and sooner where too many clients ask, the fullest first. Where the file cannot be used,
    this process counts for itself, and `shared` is false.
    """

    def __init__(self, rate: float, clock: Callable[[], float], file: Path | None = None) -> None:
        self.rate = rate
        self.shared = True
        self._clock = clock
        self._every = 1 / rate if rate else 0.0
        self._ahead = (max(1.0, 2 * rate) - 1) * self._every
        self._descriptor: int | None = None
        self._table: mmap.mmap | bytearray = bytearray(_BYTES if rate else 0)
        if rate and file is not None:
            try:
                self._share(file)
            except OSError as error:
                logger.error("Requests cannot be counted with the other workers: %s. Each counts for itself.", error)
                self.shared = False

    def check(self, client: str) -> None:
        """Take a token of a client's. Raises Refusal where none is left."""
        if not self.rate:
            return
        digest = int.from_bytes(hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=8).digest()) or 1
        with self._locked():
            now = self._clock()
            place, full_at = self._find(digest)
            if full_at > now + self._ahead + self._every:  # which no bucket is: the machine's clock has begun anew
                full_at = now
            wait = full_at - self._ahead - now
            if wait <= 0:
                _ONE.pack_into(self._table, place, digest, max(full_at, now) + self._every)
                return
        seconds = max(1, math.ceil(wait))
        message = f"Too many requests: {self.rate:g} a second are answered. Ask again in {seconds} s."
        raise Refusal(429, "too_many_requests", message, retry_after=seconds)

    def _find(self, digest: int) -> tuple[int, float]:
        """Return where a client stands and when its bucket is full; or where it may, and that it is full already."""
        first = _ONE.size * (digest % CLIENTS)
        values = _SOME.unpack_from(self._table, first)
        digests, moments = values[::2], values[1::2]
        if digest in digests:
            index = digests.index(digest)
            return first + _ONE.size * index, moments[index]
        return first + _ONE.size * moments.index(min(moments)), 0.0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the other workers out; one that is killed in here lets go."""
        if self._descriptor is None:
            yield
            return
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _share(self, path: Path) -> None:
        """Map the file, made with all the room that it will need: a hole in it, on a full disk, would kill us."""
        self._file = path.open("a+b")
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            missing = _BYTES - self._file.seek(0, 2)
            if missing > 0:
                self._file.write(bytes(missing))
                self._file.flush()
            self._table = mmap.mmap(self._file.fileno(), _BYTES)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._descriptor = self._file.fileno()
