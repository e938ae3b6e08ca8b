"""Keeps the memory that a training frees for its next step, instead of handing it back to the kernel each time."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h
_NEVER = -1
_AHEAD = 64 << 20  # bytes asked of the kernel beyond what is needed
_AFTER = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20), (_TOP_PAD, 128 << 10), (_MMAP_MAX, 65536))
"""What glibc's own thresholds grow to in a process that has freed large blocks; once set, they no longer grow."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep freed memory for a while, and hand it back at the end; elsewhere nothing changes.

    glibc maps every large block anew and unmaps it when it is freed, so that the kernel clears the pages of all of a
    network's activations in every step: more than half of a step's time on a CPU. Not to be nested.
    See https://man7.org/linux/man-pages/man3/mallopt.3.html.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _AHEAD)):
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _AFTER:
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def hand_back() -> None:
    """Hand freed memory back to the kernel, once: between stretches of work whose blocks have other sizes."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
