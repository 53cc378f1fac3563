"""Tables and plots of results, by pandas and matplotlib, which are imported here alone, when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from lmzoo.errors import InputError


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a `pandas.DataFrame` with a line for each row. Raises `InputError` without pandas."""
    return _library("pandas", "to_frame").DataFrame(rows)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, ax: Any = None) -> Any:
    """Draws one curve of (x, y) points for each name in `lines`; returns the matplotlib axes, `ax` or new ones.

    Raises `InputError` without matplotlib.
    """
    pyplot = _library("matplotlib.pyplot", "plot")
    if ax is None:
        _, ax = pyplot.subplots()
    for name, points in lines.items():
        if points:
            ax.plot(*zip(*points, strict=True), label=name)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend()
    return ax


def _library(module: str, method: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(f"{method}() needs {package}: pip install {package}, or '.[plot]' in the checkout") from None
