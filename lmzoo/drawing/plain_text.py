"""Prints a drawing as plain text for a terminal, a pipe or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lmzoo.drawing.tree import Box, Branch, Chain, Cost, Drawing, Fork, Node, own_cost, words_of

COLUMNS = ("parameters", "FLOPs/token", "state bytes")
WIDEST = 100  # columns: in a wider terminal the numbers would be too far from the names
NARROWEST = 30  # the least width of the names; in a terminal too narrow for them lines are longer than it


class _Row(NamedTuple):
    label: str
    cost: Cost | None = None
    rule: bool = False  # continued to the right margin by dashes


def text(drawing: Drawing, width: int = 80) -> str:
    """The drawing as lines of ASCII that fit into `width` columns: names to the left, costs to the right.

    A frame of dashes holds blocks that are repeated, and the costs in it are those of one of them.
    `+-> A -> B ->+` is a branch: its result is added to its input.
    """
    model = drawing.model
    widths = [max(len(name), len(cell)) + 2 for name, cell in zip(COLUMNS, _cells(model.cost), strict=True)]
    room = max(NARROWEST, min(width, WIDEST) - sum(widths))
    rows = [*_rows(model.parts, room), *_own_rows(model), _Row("total", model.cost)]
    lines = [f"{drawing.family}, T = {drawing.T}".ljust(room) + _columns(COLUMNS, widths)]
    for label, cost, rule in rows:
        if rule:
            lines.append(label.ljust(room + sum(widths), "-"))
        elif cost is None:
            lines.append(label)
        elif len(label) <= room:
            lines.append(label.ljust(room) + _columns(_cells(cost), widths))
        else:  # the costs have a line of their own
            margin = label[: len(label) - len(label.lstrip("| "))]
            lines += [label, margin.ljust(room) + _columns(_cells(cost), widths)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{value:,.0f}" if round(value) else "-" for value in dataclasses.astuple(cost))


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _rows(nodes: Sequence[Node], room: int) -> Iterator[_Row]:
    names = max((len(node.name) + 2 for node in nodes if isinstance(node, Box) and node.name), default=0)
    for node in nodes:
        if isinstance(node, Box):
            yield from _box_rows(node, names, room)
        elif isinstance(node, Chain):
            yield from _rows(node.parts, room)
        elif isinstance(node, Branch):
            yield from _branch_rows(node, room)
        elif isinstance(node, Fork):
            yield from _fork_rows(node, room)
        else:
            times = f"{node.times} x" if node.calls == 1 else words_of(node.calls)
            yield _Row(f"+- {times} ", rule=True)
            yield from _indented("|  ", _block_rows(node.parts, room - 3))
            yield _Row("+", rule=True)


def _block_rows(nodes: Sequence[Node], room: int) -> Iterator[_Row]:
    """The rows in a frame; a block with several parts that cost something has a row for their sum."""
    block = nodes[0]
    if len(nodes) > 1 or isinstance(block, (Box, Branch)) or sum(part.cost != Cost() for part in block.parts) < 2:
        yield from _rows(nodes, room)
    else:
        yield _Row("block", block.cost)
        yield from _indented("  ", _rows(block.parts, room - 2) if isinstance(block, Chain) else _rows(nodes, room - 2))


def _indented(margin: str, rows: Iterable[_Row]) -> Iterator[_Row]:
    return (row._replace(label=margin + row.label) for row in rows)


def _box_rows(box: Box, names: int, room: int) -> Iterator[_Row]:
    label = box.name.ljust(names) + box.title
    inline = f"{label} ({', '.join(box.settings)})"
    if len(inline) <= room:
        yield _Row(inline if box.settings else label, box.cost)
    else:
        yield _Row(label, box.cost)
        yield from (_Row(line) for line in _wrapped(_listed(box.settings), room, " " * (names + 2)))
    if box.parts:
        yield from _indented("  ", [*_rows(box.parts, room - 2), *_own_rows(box)])


def _own_rows(box: Box) -> Iterator[_Row]:
    """What a module has beside its parts: parameters or a state of its own."""
    own = own_cost(box)
    if any(round(value) for value in dataclasses.astuple(own)):
        yield _Row("other", own)


def _branch_rows(branch: Branch, room: int) -> Iterator[_Row]:
    first, *others = _titles(branch.parts)
    words = [first, *(f"-> {title}" for title in others)]
    words[-1] += " ->+"
    first, *more = _wrapped(words, room - 4)
    yield _Row(f"+-> {first}", branch.cost)
    yield from (_Row(f"    {line}") for line in more)
    yield from (_Row(line) for line in _setting_lines(branch, room, "    "))


def _fork_rows(fork: Fork, room: int) -> Iterator[_Row]:
    """Branches that end at one plus sign: a bar to the right joins them."""
    chains = [f"+-> {' -> '.join(_titles(branch.parts))} " for branch in fork.parts]
    notes = [_setting_lines(branch, room - 6, "    ") for branch in fork.parts]
    bar = 1 + max(map(len, [*chains, *(line for lines in notes[:-1] for line in lines)]))
    for i, (branch, chain, lines) in enumerate(zip(fork.parts, chains, notes, strict=True)):
        last = i == len(chains) - 1
        yield _Row(chain.ljust(bar, "-") + ("+->+" if last else "+"), branch.cost)
        yield from (_Row(line if last else f"|{line[1:].ljust(bar - 1)}|") for line in lines)


def _titles(nodes: Sequence[Node]) -> list[str]:
    """The classes in a chain, from left to right; a residual branch inside it is in parentheses."""
    titles: list[str] = []
    for node in nodes:
        if isinstance(node, Box):
            titles.append(node.title)
        elif isinstance(node, Branch):
            titles.append(f"(x + {' -> '.join(_titles(node.parts))})")
        elif isinstance(node, Fork):
            titles.append(f"(x + {' + '.join(' -> '.join(_titles(branch.parts)) for branch in node.parts)})")
        else:
            titles += _titles(node.parts)
    return titles


def _setting_lines(branch: Node, room: int, indent: str) -> list[str]:
    boxes = [box for box in _boxes(branch) if box.settings]
    lists = [[f"{box.title}:"] * (len(boxes) > 1) + _listed(box.settings) for box in boxes]
    return [line for words in lists for line in _wrapped(words, room, indent)]


def _boxes(node: Node) -> Iterator[Box]:
    if isinstance(node, Box):
        yield node
    else:
        for part in node.parts:
            yield from _boxes(part)


def _wrapped(words: Sequence[str], room: int, indent: str = "") -> list[str]:
    """The words in lines of at most `room` columns, unless a single word is longer."""
    lines = [indent + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines


def _listed(words: Sequence[str]) -> list[str]:
    return [f"{word}," for word in words[:-1]] + list(words[-1:])
