"""Reads which modules of lmzoo the file of a family uses, and draws them: layers, and the algorithms below them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

import lmzoo

PACKAGE = Path(lmzoo.__file__).parent
COLUMNS = ("decoder", "cell_model", "layers", "ops")  # what is drawn, from the family to the algorithms
ROW, WIDTH, GAP, LETTER = 30, 190, 70, 6.8  # pixels


def imported(source: str) -> list[str]:
    """Returns the modules of lmzoo that a source imports from `COLUMNS`, such as `layers.mamba`, in its order."""
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lmzoo"):
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                module = _module(name.split(".")[1:])
                if module and module.partition(".")[0] in COLUMNS:
                    found[module] = None
    return list(found)


def _module(parts: Sequence[str]) -> str:
    """Returns the longest prefix of a dotted name that is a file of the package; empty if there is none."""
    for end in range(len(parts), 0, -1):
        if (PACKAGE.joinpath(*parts[:end])).with_suffix(".py").is_file():
            return ".".join(parts[:end])
    return ""


@cache
def _imports_of(module: str) -> tuple[str, ...]:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return tuple(imported(path.read_text(encoding="utf-8")))


def graph(source: str) -> dict[str, list[str]]:
    """Returns the imports of a family's file, under the name "", and of each module that it reaches."""
    edges = {"": imported(source)}
    waiting = list(edges[""])
    while waiting:
        module = waiting.pop()
        if module not in edges:
            edges[module] = list(_imports_of(module))
            waiting += edges[module]
    return edges


@cache
def common() -> frozenset[str]:
    """Returns the modules that more than half of the backbones reach, which would hide what is distinctive."""
    files = [path for path in (PACKAGE / "backbones").glob("*.py") if path.name != "__init__.py"]
    counts = Counter(module for path in files for module in graph(path.read_text(encoding="utf-8")))
    return frozenset(module for module, count in counts.items() if module and count > len(files) / 2)


def distinctive(source: str) -> dict[str, list[str]]:
    """Returns the graph of a source without the modules that most families use."""
    return {
        module: [other for other in others if other not in common()]
        for module, others in graph(source).items()
        if module not in common()
    }


def used(source: str) -> list[str]:
    """Returns the modules of that graph; none for an empty source."""
    return [module for module in distinctive(source) if module]


def graph_svg(name: str, source: str) -> str:
    """Returns the drawing of the modules that a family uses, without those that most families use."""
    edges = distinctive(source)
    columns = [[""], *([m for m in edges if m and (m.partition(".")[0] == "ops") == ops] for ops in (False, True))]
    columns = [column for column in columns if column]
    height = ROW * max(map(len, columns))
    places = {
        module: (x * (WIDTH + GAP), (height - ROW * len(column)) / 2 + ROW * y)
        for x, column in enumerate(columns)
        for y, module in enumerate(column)
    }
    wires = "".join(_wire(places[module], places[other]) for module, others in edges.items() for other in others)
    boxes = "".join(_box(module or name, *place, family=not module) for module, place in places.items())
    width = len(columns) * (WIDTH + GAP) - GAP / 2  # with the wires on the right of the last column
    return (
        f'<svg class="imports" role="img" aria-label="modules that {escape(name)} uses" '
        f'viewBox="-1 -1 {width + 2} {height + 2}" width="{width + 2}" height="{height + 2}">{wires}{boxes}</svg>'
    )


def _wire(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    y1, y2 = y1 + ROW / 2 - 2, y2 + ROW / 2 - 2
    if x1 == x2:  # within a column: around its right side
        x1, bend = x1 + WIDTH, x1 + WIDTH + GAP / 2
        return f'<path class="wire" d="M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x1:g} {y2:g}"/>'
    x1 += WIDTH
    middle = (x1 + x2) / 2
    return f'<path class="wire" d="M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"/>'


def _box(name: str, x: float, y: float, *, family: bool) -> str:
    css = "state" if family else "plain"
    return (
        f'<rect class="{css}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{ROW - 4}" rx="5"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + 17:g}" text-anchor="middle">{escape(name)}</text>'
    )
