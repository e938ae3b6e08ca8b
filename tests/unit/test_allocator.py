"""Freed memory stays with the process for a while, and goes back after."""

import platform
import resource
from collections.abc import Callable

import pytest
import torch

from imago.allocator import kept_memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told what to keep"
)

LARGE = 64 << 20  # bytes: more than glibc ever keeps of its own accord
SMALL = 4 << 20


def test_freed_memory_is_used_again_without_asking_the_kernel() -> None:
    usual = page_faults(lambda: allocate(LARGE))
    with kept_memory():
        for _ in range(8):  # aligned blocks fit into freed ones once these have grown together
            allocate(LARGE)
        kept = page_faults(lambda: allocate(LARGE))
    after = page_faults(lambda: allocate(LARGE))
    assert kept < min(usual, after) / 4


def test_smaller_blocks_are_kept_as_before_once_it_is_over() -> None:
    with kept_memory():
        allocate(LARGE)
    for _ in range(8):
        allocate(SMALL)
    assert page_faults(lambda: [allocate(SMALL) for _ in range(20)]) < SMALL // resource.getpagesize()


def allocate(size: int) -> None:
    torch.zeros(size // 4).add_(1.0)


def page_faults(call: Callable[[], object]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
