"""The loss curves as an SVG drawing, made by hand: no plotting package, no script, colours from the page's style.

A line's name stands at its end, so nobody has to match colours with a legend; names that would overlap are moved apart.
Colours are classes (`s0` to `s7`, light and dark in report.css), and lines beyond the eighth are dashed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from lmzoo import humanize

N_COLOURS = 8
_LINE_HEIGHT = 17.0  # between two names, in pixels
_CHARACTER = 7.5  # width of a bold 12-pixel character, on the safe side


@dataclass(frozen=True)
class Line:
    """A curve: its name, its colour's number, points (tokens, finite loss) in order, and whether it broke off."""

    name: str
    colour: int
    points: Sequence[Sequence[float]]
    diverged: bool = False

    @property
    def label(self) -> str:
        """What stands at its end."""
        return f"{self.name} ✕" if self.diverged else f"{self.name} {self.points[-1][1]:.2f}"


def loss_chart(lines: Sequence[Line], references: Sequence[tuple[str, float]], *, width: int, height: int) -> str:
    """Validation loss over tokens as `<svg>`; `references` are (name, loss), dashed and thinned to what is legible."""
    drawn = [(line, line.points[-1]) for line in lines if line.points]
    left, top, bottom = 40.0, 12.0, height - 42.0
    right = width - 18.0 - _CHARACTER * max((len(line.label) for line, _ in drawn), default=0)
    low, high = loss_range([line.points for line, _ in drawn], [loss for _, loss in references])
    x_max = max((point[0] for line, _ in drawn for point in line.points), default=1.0) or 1.0

    def x(tokens: float) -> float:
        return left + (right - left) * tokens / x_max

    def y(loss: float) -> float:
        return bottom - (bottom - top) * (loss - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Validation loss over training tokens">']
    clip = f"plot{width}"
    parts.append(
        f'<clipPath id="{clip}"><rect x="{left}" y="{top - 2}" width="{right - left + 3:.1f}" '
        f'height="{bottom - top + 4:.1f}"/></clipPath>'
    )
    marks = ticks(low, high, max(3, int((bottom - top) / 55)))
    decimals = max((len(f"{tick:g}".partition(".")[2]) for tick in marks), default=0)
    for tick in marks:
        parts.append(f'<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.{decimals}f}</text>'
        )
    for tick in ticks(0.0, x_max, max(2, int((right - left) / 90))):
        parts.append(f'<line class="mark" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        label = humanize.count(tick, digits=len(f"{tick:.3g}".replace(".", "").split("e")[0].rstrip("0")) or 1)
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>')
    middle = (left + right) / 2
    parts.append(
        f'<text class="tick" x="{middle:.1f}" y="{bottom + 36}" text-anchor="middle">tokens seen in training</text>'
    )

    shown = legible([(name, loss) for name, loss in references if low <= loss <= high], y, _LINE_HEIGHT)
    curves = [[(x(tokens), y(loss)) for tokens, loss in line.points] for line, _ in drawn]
    for _, loss in shown:
        parts.append(f'<line class="reference" x1="{left}" x2="{right:.1f}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>')
    for (line, _), curve in zip(drawn, curves, strict=True):
        path = " ".join(f"{at_x:.1f},{at_y:.1f}" for at_x, at_y in curve)
        parts.append(
            f'<polyline class="{_style(line.colour)}" clip-path="url(#{clip})" points="{path}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    for name, loss in shown:  # over the curves, with a rim in the colour of the ground
        text, base = f"{name} {loss:.2f}", y(loss) - 4
        box = (0.9 * _CHARACTER * len(text), base - 10, base + 2)
        at_x = free_place(box, curves, left + 6, right - 6)
        parts.append(f'<text class="reference" x="{at_x:.1f}" y="{base:.1f}">{escape(text)}</text>')
    places = spread([min(max(y(end[1]), top), bottom) for _, end in drawn], _LINE_HEIGHT, top, bottom)
    for (line, end), place in zip(drawn, places, strict=True):
        at_x, at_y = x(end[0]), y(end[1])
        if top - 2 <= at_y <= bottom + 2:
            parts.append(f'<circle class="{_style(line.colour)}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="3"/>')
            leader = f"{at_x + 4:.1f},{at_y:.1f} {right + 9:.1f},{place:.1f}"
            parts.append(f'<polyline class="leader" points="{leader}"/>')
        parts.append(
            f'<text class="name {_style(line.colour)}" x="{right + 12:.1f}" y="{place + 4:.1f}">'
            f"{escape(line.label)}</text>"
        )
    return "\n".join([*parts, "</svg>"])


def loss_range(curves: Sequence[Sequence[Sequence[float]]], references: Sequence[float]) -> tuple[float, float]:
    """The losses to show: the lowest there is, up to where the interesting part begins, with a little room.

    A fresh model's loss, ln V, would press all that differs into the lowest part of the drawing: what lies above both
    the second evaluation and the unigram is left to run out at the top.
    """
    losses = [[loss for _, loss in points] for points in curves]
    lowest = min([loss for each in losses for loss in each] + list(references), default=0.0)
    ends = [each[-1] for each in losses]
    starts = [each[1] if len(each) > 2 else each[0] for each in losses]
    unigram = max(references, default=max(starts, default=1.0))
    highest = max([*ends, min(unigram, max(starts, default=unigram))], default=1.0)
    room = max(0.06 * (highest - lowest), 0.02)
    return max(0.0, lowest - room), highest + room


def ticks(low: float, high: float, at_most: int) -> list[float]:
    """Round numbers in [low, high], 1, 2 or 5 times a power of ten apart; at most `at_most` of them, or two."""
    power = 10.0 ** math.floor(math.log10((high - low) / max(at_most, 1)))
    for step in (factor * power for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= max(at_most, 2):
            return [round(i * step, 12) for i in range(first, last + 1)]
    return []


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Places near the `wanted` ones, in the same order, at least `distance` apart and within [low, high] if they fit.

    Names that would overlap are put around the middle of where they wanted to be, as one block; blocks that then touch
    are joined, until none do.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[tuple[float, list[int]]] = []  # (sum of the wanted places, members from low to high)

    def start(block: tuple[float, list[int]]) -> float:
        total, members = block
        extent = distance * (len(members) - 1)
        return max(low, min(total / len(members) - extent / 2, high - extent))

    for i in order:
        block = (wanted[i], [i])
        while blocks and start(blocks[-1]) + distance * len(blocks[-1][1]) > start(block):
            total, members = blocks.pop()
            block = (total + block[0], members + block[1])
        blocks.append(block)
    places = [0.0] * len(wanted)
    for block in blocks:
        for k, i in enumerate(block[1]):
            places[i] = start(block) + distance * k
    return places


def legible(
    references: Sequence[tuple[str, float]], y: Callable[[float], float], distance: float
) -> list[tuple[str, float]]:
    """The references that can be told apart: the best one, then each, in order, that is `distance` from those kept."""
    kept: list[tuple[str, float]] = []
    for name, loss in sorted(references, key=lambda entry: entry[1])[:1] + list(references):
        if all(abs(y(loss) - y(other)) >= distance for _, other in kept):
            kept.append((name, loss))
    return kept


def free_place(
    box: tuple[float, float, float], curves: Sequence[Sequence[tuple[float, float]]], left: float, right: float
) -> float:
    """Where a text of (width, top, bottom) starts so that no curve crosses it: furthest left; else `left`."""
    width, top, bottom = box

    def crosses(curve: Sequence[tuple[float, float]], start: float) -> bool:
        for (x1, y1), (x2, y2) in pairwise(curve):
            begin, end = max(x1, start), min(x2, start + width)
            if begin < end:
                at = [y1 + (y2 - y1) * (place - x1) / (x2 - x1) for place in (begin, end)]
                if min(at) <= bottom and max(at) >= top:
                    return True
        return False

    starts = [left + 10.0 * i for i in range(int(max(0.0, right - left - width) // 10) + 1)]
    return next((start for start in starts if not any(crosses(curve, start) for curve in curves)), left)


def _style(colour: int) -> str:
    return f"s{colour % N_COLOURS}" + (" dashed" if colour >= N_COLOURS else "")
