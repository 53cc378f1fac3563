"""Names the plug-in that caused an exception: the author's file and line, in the place of a traceback through lmzoo."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_OWN = ("lmzoo.", "torch.")


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
