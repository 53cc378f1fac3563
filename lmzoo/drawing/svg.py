"""Draws a model as SVG: boxes in the order of computation, residual branches around them, frames around repeats.

The same function draws every family, from the same tree as the text of `lmzoo show`. Colors are CSS variables of the
page (`--ink`, `--soft`, `--rule`, `--card`, `--s0`, `--s2`), so that a drawing follows light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from lmzoo.drawing.tree import TOKEN_IDS, Box, Branch, Chain, Cost, Drawing, Fork, Node, Sum, words_of

TITLE, SMALL = 7.8, 6.2  # pixels of a character, at most on average
LINE = 15  # of settings
GAP = 20  # between two parts
PAD = 12
HEAD = 28  # of a frame, for its label
SKIP = 26  # from a residual branch to the line of its input
PLUS = 8  # radius
LETTERS = 30  # in a line of settings
SHEETS = 2  # drawn behind a box of experts


class _Piece(NamedTuple):
    """A part of the drawing: its size, the x at which the features enter and leave, and its SVG.

    `open` parts begin with a line instead of a box, so no arrow leads to them; the features do not pass `apart` ones.
    """

    width: float
    height: float
    axis: float
    body: str
    open: bool = False
    apart: bool = False


def svg(drawing: Drawing) -> str:
    """Returns the drawing as an element `svg`. A tooltip of each part has its costs."""
    piece = _stack([_piece(part) for part in drawing.model.parts], arrows=False)
    width, height = piece.width + 2, piece.height + 2
    return (
        f'<svg class="drawing" role="img" aria-label="{escape(drawing.family)}: its parts from input to output" '
        f'viewBox="-1 -1 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="var(--soft)"/></marker></defs>{piece.body}</svg>'
    )


def _piece(node: Node) -> _Piece:
    if isinstance(node, Box):
        return _box(node)
    if isinstance(node, Chain):
        return _stack([_piece(part) for part in node.parts])
    if isinstance(node, Branch):
        return _residual([_stack([_piece(part) for part in node.parts])])
    if isinstance(node, Fork):
        return _residual([_stack([_piece(part) for part in branch.parts]) for branch in node.parts])
    if isinstance(node, Sum):
        return _added([_piece(part) for part in node.parts], skip=0)
    label = f"{node.times} ×" if node.calls == 1 else words_of(node.calls)
    return _repeat(_stack([_piece(part) for part in node.parts]), label, node.cost)


def _box(box: Box) -> _Piece:
    title = f"{box.name}: {box.title}" if box.name else box.title
    if box.parts:
        inner = _stack([_piece(part) for part in box.parts], arrows=False)
        return _frame(inner, title, box.cost)
    lines = _wrapped(box.settings)
    width = max(TITLE * len(title), *(SMALL * len(line) for line in lines), 90) + 2 * PAD
    height = 28 + LINE * len(lines)
    sheets = SHEETS if box.experts else 0
    texts = f'<text class="title" x="{width / 2:g}" y="19" text-anchor="middle">{escape(title)}</text>' + "".join(
        f'<text x="{width / 2:g}" y="{34 + LINE * number}" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    behind = "".join(_rectangle(5 * n, 5 * n, width, height, _kind(box.cost)) for n in range(sheets, 0, -1))
    front = _rectangle(0, 0, width, height, _kind(box.cost))
    body = f"<g>{_tooltip(title, box.cost)}{behind}{front}{texts}</g>"
    return _Piece(width + 5 * sheets, height + 5 * sheets, width / 2, body, apart=box.title == TOKEN_IDS)


def _kind(cost: Cost) -> str:
    """Returns the class of a box: it keeps a state, it multiplies, or neither."""
    return "state" if cost.state_bytes else "product" if cost.flops else "plain"


def _stack(pieces: Sequence[_Piece], *, arrows: bool = True) -> _Piece:
    """Returns the pieces one below the other, their axes in one line."""
    if not pieces:
        return _Piece(0, 0, 0, "")
    axis = max(piece.axis for piece in pieces)
    width = axis + max(piece.width - piece.axis for piece in pieces)
    body, y = "", 0.0
    for number, piece in enumerate(pieces):
        if number:
            body += "" if piece.apart else _line(f"M{axis:g} {y:g}v{GAP}", arrow=arrows and not piece.open)
            y += GAP
        body += _at(axis - piece.axis, y, piece.body)
        y += piece.height
    return _Piece(width, y, axis, body, pieces[0].open)


def _residual(branches: Sequence[_Piece]) -> _Piece:
    """Returns branches side by side, whose results are added to their input, which a line on the left carries."""
    return _added(branches, skip=SKIP)


def _added(branches: Sequence[_Piece], skip: int) -> _Piece:
    """Returns branches side by side, whose results are added; with `skip` pixels on the left also to their input."""
    top, bottom = 2 * GAP, max(branch.height for branch in branches) + 3 * GAP
    height = bottom + PLUS
    width, body = float(skip), ""
    axes: list[float] = []
    for branch in branches:
        axes.append(width + branch.axis)
        body += _at(width, top, branch.body) + _line(f"M{axes[-1]:g} {GAP}V{top}", arrow=True)
        width += branch.width + GAP
    width -= GAP
    axis = axes[0] if len(axes) == 1 else (axes[0] + axes[-1]) / 2
    ends = [top + branch.height for branch in branches]
    start = 1 if skip else axes[0]
    wires = f"M{axis:g} 0V{GAP}M{start:g} {GAP}H{axes[-1]:g}" if len(axes) > 1 else f"M{axis:g} 0V{GAP}H{start:g}"
    for x, end in zip(axes, ends, strict=True):
        if abs(x - axis) < PLUS:
            body += _line(f"M{x:g} {end:g}V{bottom - PLUS:g}", arrow=True)
        else:
            side = axis - PLUS if x < axis else axis + PLUS
            body += _line(f"M{x:g} {end:g}V{bottom:g}H{side:g}", arrow=True)
    body += _line(wires) + (_line(f"M1 {GAP}V{bottom:g}H{axis - PLUS:g}", arrow=True) if skip else "")
    plus = f'<circle class="plus" cx="{axis:g}" cy="{bottom:g}" r="{PLUS}"/>' + _line(
        f"M{axis - 4:g} {bottom:g}h8M{axis:g} {bottom - 4:g}v8"
    )
    return _Piece(width, height, axis, body + plus, open=True)


def _repeat(inner: _Piece, label: str, cost: Cost) -> _Piece:
    """Returns a dashed frame around blocks, with its label on the right of the line of the features."""
    axis = PAD + inner.axis
    width = max(inner.width + 2 * PAD, axis + TITLE * len(label) + 2 * PAD)
    end = HEAD + inner.height
    lines = _line(f"M{axis:g} 0V{HEAD}") + _line(f"M{axis:g} {end:g}v{PAD}")
    text = f'<text class="title" x="{width - PAD:g}" y="19" text-anchor="end">{escape(label)}</text>'
    frame = f'<rect class="repeat" width="{width:g}" height="{end + PAD:g}" rx="8"/>'
    body = f"<g>{_tooltip(label, cost)}{frame}{lines}{text}</g>{_at(PAD, HEAD, inner.body)}"
    return _Piece(width, end + PAD, axis, body, open=True)


def _frame(inner: _Piece, title: str, cost: Cost) -> _Piece:
    """Returns a frame with a title around the parts of a module."""
    width, height = max(inner.width, TITLE * len(title)) + 2 * PAD, HEAD + inner.height + PAD
    left = (width - inner.width) / 2
    text = f'<text class="title" x="{PAD}" y="19">{escape(title)}</text>'
    frame = f'<rect class="frame" width="{width:g}" height="{height:g}" rx="8"/>'
    body = f"<g>{_tooltip(title, cost)}{frame}{text}</g>{_at(left, HEAD, inner.body)}"
    return _Piece(width, height, left + inner.axis, body)


def _tooltip(name: str, cost: Cost) -> str:
    costs = f"{cost.params:,} parameters, {cost.flops:,.0f} FLOPs per token, {cost.state_bytes:,} bytes of state"
    return f"<title>{escape(name)}: {costs}</title>"


def _rectangle(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class="{css}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def _line(path: str, *, arrow: bool = False) -> str:
    marker = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<path class="wire" d="{path}"{marker}/>'


def _at(x: float, y: float, body: str) -> str:
    return f'<g transform="translate({x:g} {y:g})">{body}</g>'


def _wrapped(settings: Sequence[str]) -> list[str]:
    """Returns the settings in lines of at most `LETTERS` letters, unless one setting is longer."""
    lines: list[str] = []
    for setting in settings:
        if lines and len(lines[-1]) + len(setting) + 2 <= LETTERS:
            lines[-1] += f", {setting}"
        else:
            lines.append(setting)
    return lines
