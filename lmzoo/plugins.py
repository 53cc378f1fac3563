"""Plug-ins: loads a file or a module, and names the author's file and line when one of its models raises."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lmzoo.errors import ConfigError, LmzooError

_OWN = ("lmzoo.", "torch.")


def load_source(source: str) -> None:
    """Import the Python file or the module `source`, a file only once. Raises `ConfigError`."""
    path = Path(source)
    if is_file(source):
        if not os.path.isfile(path):
            raise ConfigError(f"plugin={source!r} is not a file")
        if module_name(path) in sys.modules:
            return
    elif not all(part.isidentifier() for part in source.split(".")):
        raise ConfigError(f"plugin={source!r} must be a Python file (NAME.py) or the name of a module")
    try:
        if is_file(source):
            _execute(path)
        else:
            importlib.import_module(source)
    except LmzooError as error:
        raise ConfigError(f"plugin={source!r}: {error}") from error
    except ImportError as error:
        beside = is_file(source) and os.path.isfile(path.parent / f"{error.name}.py")
        hint = f"; to import files beside it, set PYTHONPATH={str(path.parent)!r}" if beside else ""
        raise ConfigError(f"plugin={source!r} cannot be imported: {error}{hint}") from error
    except (Exception, SystemExit) as error:  # a plug-in that calls sys.exit() must not end the command in silence
        place = place_in(error, str(path.resolve())) if is_file(source) else ""
        raise ConfigError(f"plugin={source!r} failed to import{place}: {described(error)}") from error


def is_file(source: str) -> bool:
    """Returns True if `source` names a Python file, not a module."""
    return Path(source).suffix == ".py"


def module_name(path: Path) -> str:
    """Returns the module name under which a plug-in file is imported, unique for each file."""
    return "lmzoo_plugin_" + re.sub(r"\W", "_", str(path.resolve()))


def _execute(path: Path) -> None:
    """Execute the file `path` as a module."""
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def blame(error: BaseException, classes: Iterator[type] | list[type]) -> str | None:
    """Returns one line about `error` if a model of one of `classes` took part in it, else None.

    `classes` are the registered classes; those of lmzoo itself are left out, because a bug in lmzoo is reported with
    its traceback. The line names the last place in the author's file, or the class if no such place is in the
    traceback, as when the head has another width than the features.
    """
    foreign = [cls for cls in classes if not cls.__module__.startswith(_OWN)]
    if not foreign:
        return None
    what = described(error)
    modules = {cls.__module__ for cls in foreign}
    place = found = None
    for frame, line in _frames(error):
        if frame.f_globals.get("__name__") in modules:
            place = f"{frame.f_code.co_filename}:{line}"
        found = next((cls for cls in map(type, frame.f_locals.values()) if cls in foreign), found)
    if place is not None:
        return f"{place}: {what}"
    return None if found is None else f"{_place_of(found)}: the model {found.__name__} cannot be used: {what}"


def described(error: BaseException) -> str:
    """Returns the kind of an exception and its text in one line; the kind alone, if it has no text, as an `assert`."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_in(error: BaseException, file: str) -> str:
    """Returns " in line N" for the last line of `file` in the traceback of `error`, or an empty text."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" in line {error.lineno}"
    lines = [line for frame, line in _frames(error) if frame.f_code.co_filename == file]
    return f" in line {lines[-1]}" if lines else ""


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yields the frames of a traceback, the outermost first, with their line numbers."""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        yield step.tb_frame, step.tb_lineno
        step = step.tb_next


def _place_of(cls: type[Any]) -> str:
    """Returns the file and line of a class, or its module if it has no file."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return cls.__module__
