"""Tests that every public class, function and method has a docstring (an override may inherit it)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

from torch import nn

import lmzoo

MODULES = sorted(info.name for info in pkgutil.walk_packages(lmzoo.__path__, "lmzoo.") if "_registry" not in info.name)


def undocumented(module: ModuleType) -> list[str]:
    found = []
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) and not thing.__doc__:
            found.append(name)
        if inspect.isclass(thing):
            if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):  # what dataclass writes by itself
                found.append(name)
            found += [
                f"{name}.{key}"
                for key, value in vars(thing).items()
                if not key.startswith("_") and inspect.isfunction(value) and not inherited_doc(thing, key)
            ]
    return found


def inherited_doc(cls: type, name: str) -> str | None:
    """Return the docstring of a method or of the method it overrides, except torch's generic one on `forward`."""
    homes = [base for base in cls.__mro__ if name in vars(base) and base is not nn.Module]
    return next((doc for base in homes if (doc := inspect.getdoc(vars(base)[name]))), None)


def test_public_names_have_docstrings() -> None:
    assert len(MODULES) > 400
    for name in MODULES:
        if name != "lmzoo.__main__":
            module = importlib.import_module(name)
            assert module.__doc__, f"{name} has no docstring"
            assert not undocumented(module)
