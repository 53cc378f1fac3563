"""Keeps freed memory in the process during training, because each step frees and allocates the same large blocks.

glibc's allocator returns large blocks to the system, which clears every page before it hands them out again: that took
2 to 6 % of a step of gpt2 on two cores (docs/log.md). The setting holds for the whole process, so only the command line
turns it on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

from lmzoo.hardware import give_back_memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt (glibc's malloc.h)
# Larger blocks always come from the system and return to it. This is the largest value that glibc allows; without such
# blocks, the heap grew to ten times the memory in use.
LARGEST_KEPT = 32 << 20  # bytes
_NEVER = (1 << 31) - 1


@contextmanager
def keep_freed_memory(enabled: bool = True) -> Generator[None]:
    """Keep freed memory for later allocations within the block, and return it to the system at its end.

    Does nothing without glibc, or unless `enabled`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if enabled else None
    if mallopt is None:
        yield
        return
    try:
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, _NEVER)
        yield
    finally:
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_KEPT)  # glibc's own value after it has freed a block of that size
        give_back_memory()
