"""Draws the decoding state of a model to scale against the number of tokens read, beside that of a second model."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from lmzoo import humanize

WIDTH, ROW, LEFT, RIGHT = 460, 40, 106, 72  # pixels, few enough for a phone
THICK, THIN = 14, 6  # bars of the model, and of the one beside it


def state_svg(states: Mapping[int, int], name: str = "", beside: Mapping[int, int] | None = None) -> str:
    """Returns a bar for each number of tokens in `states`, as long as the bytes.

    `beside` holds the bytes of the model `name` after the same numbers of tokens, drawn as thin bars.
    """
    beside = beside or {}
    scale = (WIDTH - LEFT - RIGHT) / max(*states.values(), *beside.values(), 1)
    rows = ""
    for number, (length, size) in enumerate(states.items()):
        y = number * ROW
        rows += f'<text x="{LEFT - 12}" y="{y + 16}" text-anchor="end">{length:,} tokens</text>'
        rows += _bar("bar", y + 5, THICK, size, scale, humanize.size(size))
        if beside:
            last = f"{name}: " if number == 0 else ""
            rows += _bar("beside", y + 5 + THICK + 3, THIN, beside[length], scale, last + humanize.size(beside[length]))
    height = ROW * len(states)
    label = "; ".join(f"{length:,} tokens: {size:,} bytes" for length, size in states.items())
    return (
        f'<svg class="states" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}">{rows}</svg>'
    )


def _bar(css: str, y: float, thickness: int, size: int, scale: float, words: str) -> str:
    width = max(size * scale, 1 if size else 0)
    return (
        f'<rect class="{css}" x="{LEFT}" y="{y:g}" width="{width:.4g}" height="{thickness}"/>'
        f'<text class="{css}" x="{LEFT + width + 8:.4g}" y="{y + thickness / 2 + 4:g}">{escape(words)}</text>'
    )
