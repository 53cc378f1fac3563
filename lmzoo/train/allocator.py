"""Freed memory stays with the process: a step of training frees and takes the same large blocks again and again.

glibc's allocator gives large blocks back to the system, which must then clear every page before it hands them out
anew: of a step of gpt2 on two cores that took about a twentieth (docs/log.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

from lmzoo.machine import give_back_memory

# The parameters of mallopt (glibc's malloc.h), and what glibc comes to by itself once large blocks have been freed.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
_LARGEST_THRESHOLD = 32 << 20  # bytes
_USUAL = ((TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD), (MMAP_THRESHOLD, _LARGEST_THRESHOLD), (MMAP_MAX, 1 << 16))
_NEVER = (1 << 31) - 1


@contextmanager
def keep_freed_memory() -> Generator[None]:
    """Within the block, what is freed is kept for what is taken next, and given back at its end; without glibc
    nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    try:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, _NEVER)
        yield
    finally:
        for parameter, value in _USUAL:
            mallopt(parameter, value)
        give_back_memory()
