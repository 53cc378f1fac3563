"""Prints a drawing as plain text for a terminal, a pipe or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lmzoo.drawing.tree import Box, Branch, Chain, Cost, Drawing, Fork, Node, Sum, own_cost, words_of

COLUMNS = ("parameters", "FLOPs/token", "state bytes")
WIDEST = 100  # maximum of columns: in a wider terminal the numbers would be too far from the names
NARROWEST = 30  # minimum of columns for the names, even if lines are then wider than the terminal


class _Row(NamedTuple):
    label: str
    cost: Cost | None = None
    rule: bool = False  # continued to the right margin by dashes


def text(drawing: Drawing, width: int = 80) -> str:
    """Returns the drawing as lines of ASCII with at most `width` columns: names on the left, costs on the right.

    A frame of dashes encloses a repeated block; the costs in it are per block. `+-> A -> B ->+` is a residual branch:
    its result is added to its input.
    """
    model = drawing.model
    widths = [max(len(name), len(cell)) + 2 for name, cell in zip(COLUMNS, _cells(model.cost), strict=True)]
    columns = max(NARROWEST, min(width, WIDEST) - sum(widths))
    rows = [*_rows(model.parts, columns), *_own_rows(model), _Row("total", model.cost)]
    lines = [f"{drawing.family}, T = {drawing.T}".ljust(columns) + _columns(COLUMNS, widths)]
    for label, cost, rule in rows:
        if rule:
            lines.append(label.ljust(columns + sum(widths), "-"))
        elif cost is None:
            lines.append(label)
        elif len(label) <= columns:
            lines.append(label.ljust(columns) + _columns(_cells(cost), widths))
        else:  # the costs go to a separate line
            margin = label[: len(label) - len(label.lstrip("| "))]
            lines += [label, margin.ljust(columns) + _columns(_cells(cost), widths)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{value:,.0f}" if round(value) else "-" for value in dataclasses.astuple(cost))


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _rows(nodes: Sequence[Node], columns: int) -> Iterator[_Row]:
    names = max((len(node.name) + 2 for node in nodes if isinstance(node, Box) and node.name), default=0)
    for node in nodes:
        if isinstance(node, Box):
            yield from _box_rows(node, names, columns)
        elif isinstance(node, Chain):
            yield from _rows(node.parts, columns)
        elif isinstance(node, Branch):
            yield from _branch_rows(node, columns)
        elif isinstance(node, Fork):
            yield from _fork_rows(node, columns)
        elif isinstance(node, Sum):
            yield _Row(_titles([node])[0], node.cost)
            yield from (_Row(line) for line in _setting_lines(node, columns, "    "))
        else:
            times = f"{node.times} x" if node.calls == 1 else words_of(node.calls)
            yield _Row(f"+- {times} ", rule=True)
            yield from _indented("|  ", _block_rows(node.parts, columns - 3))
            yield _Row("+", rule=True)


def _block_rows(nodes: Sequence[Node], columns: int) -> Iterator[_Row]:
    """Yields the rows in a frame; a block with several parts that have a cost gets a row with their sum."""
    block = nodes[0]
    if len(nodes) > 1 or isinstance(block, (Box, Branch)) or sum(part.cost != Cost() for part in block.parts) < 2:
        yield from _rows(nodes, columns)
    else:
        yield _Row("block", block.cost)
        yield from _indented(
            "  ", _rows(block.parts, columns - 2) if isinstance(block, Chain) else _rows(nodes, columns - 2)
        )


def _indented(margin: str, rows: Iterable[_Row]) -> Iterator[_Row]:
    return (row._replace(label=margin + row.label) for row in rows)


def _box_rows(box: Box, names: int, columns: int) -> Iterator[_Row]:
    label = box.name.ljust(names) + box.title
    inline = f"{label} ({', '.join(box.settings)})"
    if len(inline) <= columns:
        yield _Row(inline if box.settings else label, box.cost)
    else:
        yield _Row(label, box.cost)
        yield from (_Row(line) for line in _wrapped(_listed(box.settings), columns, " " * (names + 2)))
    if box.parts:
        yield from _indented("  ", [*_rows(box.parts, columns - 2), *_own_rows(box)])


def _own_rows(box: Box) -> Iterator[_Row]:
    """Yields a row for the parameters and the state that a module owns itself, if it has any."""
    own = own_cost(box)
    if any(round(value) for value in dataclasses.astuple(own)):
        yield _Row("other", own)


def _branch_rows(branch: Branch, columns: int) -> Iterator[_Row]:
    first, *others = _titles(branch.parts)
    words = [first, *(f"-> {title}" for title in others)]
    words[-1] += " ->+"
    first, *more = _wrapped(words, columns - 4)
    yield _Row(f"+-> {first}", branch.cost)
    yield from (_Row(f"    {line}") for line in more)
    yield from (_Row(line) for line in _setting_lines(branch, columns, "    "))


def _fork_rows(fork: Fork, columns: int) -> Iterator[_Row]:
    """Yields the rows of parallel branches, which a bar on the right joins at one plus sign."""
    chains = [f"+-> {' -> '.join(_titles(branch.parts))} " for branch in fork.parts]
    notes = [_setting_lines(branch, columns - 6, "    ") for branch in fork.parts]
    bar = 1 + max(map(len, [*chains, *(line for lines in notes[:-1] for line in lines)]))
    for i, (branch, chain, lines) in enumerate(zip(fork.parts, chains, notes, strict=True)):
        last = i == len(chains) - 1
        yield _Row(chain.ljust(bar, "-") + ("+->+" if last else "+"), branch.cost)
        yield from (_Row(line if last else f"|{line[1:].ljust(bar - 1)}|") for line in lines)


def _titles(nodes: Sequence[Node]) -> list[str]:
    """Returns the classes in a chain, from left to right; a residual branch inside it is in parentheses."""
    titles: list[str] = []
    for node in nodes:
        if isinstance(node, Box):
            titles.append(node.title)
        elif isinstance(node, Branch):
            titles.append(f"(x + {' -> '.join(_titles(node.parts))})")
        elif isinstance(node, Fork):
            titles.append(f"(x + {' + '.join(' -> '.join(_titles(branch.parts)) for branch in node.parts)})")
        elif isinstance(node, Sum):
            titles.append(f"({' + '.join(' -> '.join(_titles([part])) for part in node.parts)})")
        else:
            titles += _titles(node.parts)
    return titles


def _setting_lines(branch: Node, columns: int, indent: str) -> list[str]:
    boxes = [box for box in _boxes(branch) if box.settings]
    lists = [[f"{box.title}:"] * (len(boxes) > 1) + _listed(box.settings) for box in boxes]
    return [line for words in lists for line in _wrapped(words, columns, indent)]


def _boxes(node: Node) -> Iterator[Box]:
    if isinstance(node, Box):
        yield node
    else:
        for part in node.parts:
            yield from _boxes(part)


def _wrapped(words: Sequence[str], columns: int, indent: str = "") -> list[str]:
    """Returns the words in lines of at most `columns` columns, unless a single word is longer."""
    lines = [indent + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= columns:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines


def _listed(words: Sequence[str]) -> list[str]:
    return [f"{word}," for word in words[:-1]] + list(words[-1:])
