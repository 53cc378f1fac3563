"""Stand-ins for pandas and matplotlib, which are optional and large: they record what they were given."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest


class DataFrame:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows


class Axes:
    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self.labels: list[str] = []

    def plot(self, x: Any, y: Any, label: str) -> None:
        self.curves[label] = list(zip(x, y, strict=True))

    def set_xlabel(self, label: str) -> None:
        self.labels.append(label)

    set_ylabel = set_xlabel

    def legend(self) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put both in the place of the libraries, whether these are installed or not."""
    pandas, matplotlib, pyplot = (ModuleType(name) for name in ("pandas", "matplotlib", "matplotlib.pyplot"))
    monkeypatch.setattr(pandas, "DataFrame", DataFrame, raising=False)
    monkeypatch.setattr(pyplot, "subplots", lambda: (None, Axes()), raising=False)
    for module in (pandas, matplotlib, pyplot):
        module.__spec__ = ModuleSpec(module.__name__, None)  # torch looks for it
        monkeypatch.setitem(sys.modules, module.__name__, module)
