"""Makes a package callable: `lmzoo.train`, `lmzoo.compare` and `lmzoo.inspect` are packages and also functions."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package `lmzoo.NAME` that calls the function NAME of `lmzoo.api`, which is imported at the first call."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return _function(self)(*arguments, **settings)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self))


def _function(package: ModuleType) -> Any:
    return getattr(import_module("lmzoo.api"), package.__name__.rpartition(".")[2])


def make_callable(package: str) -> None:
    """Make the package of this name callable. It stays a module: its submodules are imported as before."""
    sys.modules[package].__class__ = _CallablePackage
