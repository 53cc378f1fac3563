"""Loads the reference implementations of flash-linear-attention, without its package, which needs triton."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def load(path: str) -> ModuleType:
    """Returns the module at `path` in the package, such as "ops/gla/naive.py"."""
    package = importlib.util.find_spec("fla")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / path
    spec = importlib.util.spec_from_file_location("fla_" + path.removesuffix(".py").replace("/", "_"), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
