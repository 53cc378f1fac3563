"""Freed memory stays with the process: a step of training frees and takes the same large blocks again and again.

glibc's allocator gives large blocks back to the system, which must then clear every page before it hands them out
anew: of a step of gpt2 on two cores that took 2 to 6 % (docs/log.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

from lmzoo.hardware import give_back_memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt (glibc's malloc.h)
# Larger blocks always come from the system and go back to it. This is the most that glibc allows; with none going back,
# its heap was seen to grow to ten times what was in use.
LARGEST_KEPT = 32 << 20  # bytes
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
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, _NEVER)
        yield
    finally:
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_KEPT)  # what glibc comes to by itself, once a block of that size was freed
        give_back_memory()
