"""Loss curves as SVG, without a plotting package or a script.

Labels stand in the right margin beside the ends of their curves, in the place of a legend; labels that would overlap
are moved apart. Colors are classes (`s0` to `s7`, light and dark in report.css); curves after the eighth are dashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lmzoo import humanize

N_COLORS = 8
LINE_HEIGHT = 17  # pixels between two labels
_CHARACTER = 7.5  # upper bound for the width of a bold 12-pixel character


@dataclass(frozen=True)
class Line:
    """A curve: its name, the number of its color, its points (tokens, finite loss), and whether training diverged."""

    name: str
    color: int
    points: Sequence[Sequence[float]]
    diverged: bool = False

    @property
    def label(self) -> str:
        """The label at its end."""
        return f"{self.name} ✕" if self.diverged else f"{self.name} {self.points[-1][1]:.2f}"


def loss_chart(lines: Sequence[Line], references: Sequence[tuple[str, float]], *, width: int, height: int) -> str:
    """Validation loss over tokens as `<svg>`; `references` are (name, loss), drawn as dashed lines."""
    drawn = [line for line in lines if line.points]
    low, high = loss_range([line.points for line in drawn], [loss for _, loss in references])
    shown = [(f"{name} {loss:.2f}", loss) for name, loss in references if low <= loss <= high]
    longest = max((len(text) for text in [line.label for line in drawn] + [label for label, _ in shown]), default=0)
    left, top, bottom = 40.0, 12.0, height - 42.0
    right = width - 26.0 - _CHARACTER * longest
    x_max = max((point[0] for line in drawn for point in line.points), default=1.0) or 1.0

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

    for _, loss in shown:
        parts.append(f'<line class="reference" x1="{left}" x2="{right:.1f}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>')
    labels = [(text, "reference", right, y(loss)) for text, loss in shown]
    for line in drawn:
        path = " ".join(f"{x(tokens):.1f},{y(loss):.1f}" for tokens, loss in line.points)
        style, end_x, end_y = _style(line.color), x(line.points[-1][0]), y(line.points[-1][1])
        parts.append(
            f'<polyline class="{style}" clip-path="url(#{clip})" points="{path}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
        if top - 2 <= end_y <= bottom + 2:
            parts.append(f'<circle class="{style}" cx="{end_x:.1f}" cy="{end_y:.1f}" r="3"/>')
        labels.append((line.label, f"name {style}", end_x + 4, end_y))
    places = spread([min(max(end_y, top), bottom) for *_, end_y in labels], LINE_HEIGHT, top, bottom)
    for (text, style, end_x, end_y), place in zip(labels, places, strict=True):
        if top - 2 <= end_y <= bottom + 2:
            leader = f"{end_x:.1f},{end_y:.1f} {right + 17:.1f},{place:.1f}"
            parts.append(f'<polyline class="leader" points="{leader}"/>')
        parts.append(f'<text class="{style}" x="{right + 20:.1f}" y="{place + 4:.1f}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"])


def loss_range(curves: Sequence[Sequence[Sequence[float]]], references: Sequence[float]) -> tuple[float, float]:
    """The losses to show: from the lowest up to the unigram or the second evaluations, with a margin.

    With the initial loss, ln V, in the range, all differences would be pressed into the lowest part of the chart, so
    the first steep part of the curves is cut off at the top.
    """
    losses = [[loss for _, loss in points] for points in curves]
    lowest = min([loss for each in losses for loss in each] + list(references), default=0.0)
    ends = [each[-1] for each in losses]
    starts = [each[1] if len(each) > 2 else each[0] for each in losses]
    unigram = max(references, default=max(starts, default=1.0))
    highest = max([*ends, min(unigram, max(starts, default=unigram))], default=1.0)
    margin = max(0.06 * (highest - lowest), 0.02)
    return max(0.0, lowest - margin), highest + margin


def ticks(low: float, high: float, at_most: int) -> list[float]:
    """At most `at_most` (or two) round numbers in [low, high], with a distance of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / max(at_most, 1)))
    for step in (factor * power for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= max(at_most, 2):
            return [round(i * step, 12) for i in range(first, last + 1)]
    return []


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Positions near the `wanted` ones, in the same order, at least `distance` apart, within [low, high] if possible.

    Labels that would overlap form a block around the mean of their wanted positions; blocks that touch are merged.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[tuple[float, list[int]]] = []  # (sum of the wanted positions, members from low to high)

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


def _style(color: int) -> str:
    return f"s{color % N_COLORS}" + (" dashed" if color >= N_COLORS else "")
