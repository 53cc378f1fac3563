"""Keeps the garbage collector away from the objects of imported modules, which are never freed.

With them a collection takes half a second, and every training run of the command line ends with one. Until the first
test there is none: what is made while modules are imported and tests are collected stays.
"""

from __future__ import annotations

import gc
import sys

import hypothesis  # noqa: F401 (imported later, it warns about an object whose referrers are frozen, which it cannot see)

MODULES = 200  # newly imported, after which it is worth while to collect and freeze again
_frozen = 0  # number of modules at the last time

gc.disable()  # `freeze_modules` enables it again, in the first test


def freeze_modules() -> None:
    """Make later collections ignore all present objects, if many modules have been imported since the last call."""
    global _frozen
    if len(sys.modules) >= _frozen + MODULES:
        gc.collect()
        gc.freeze()
        gc.enable()
        _frozen = len(sys.modules)
