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


def test_freed_memory_is_used_again_without_asking_the_kernel() -> None:
    def allocate() -> None:
        torch.zeros(LARGE // 4).add_(1.0)

    usual = page_faults(allocate)
    with kept_memory():
        for _ in range(8):  # aligned blocks fit into freed ones once these have grown together
            allocate()
        kept = page_faults(allocate)
    after = page_faults(allocate)
    assert kept < min(usual, after) / 4


def page_faults(call: Callable[[], None]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
