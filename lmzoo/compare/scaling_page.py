"""Makes the page of a comparison at several sizes: losses and fitted curves over FLOPs, as one HTML file.

Like a report, it opens without a network, and all outside text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lmzoo import humanize
from lmzoo.compare import report_tables as tables
from lmzoo.compare.figure import (
    LINE,
    NUMBER,
    SOFT,
    X_TICKS,
    Axis,
    Figure,
    Spec,
    loss_channel,
    margin,
    model_channels,
    tooltip,
)
from lmzoo.compare.report import drawn_page
from lmzoo.compare.report_charts import chart

if TYPE_CHECKING:
    from lmzoo.compare.series import Scaling

FLOPS = "FLOPs of training"
POINTS = 60  # of a curve
CAPTION = (
    "Large points: means over the seeds; small points: the seeds. Lines: the fitted curves, within the measured range"
)


def html(scaling: Scaling) -> str:
    """Make the whole page."""
    from lmzoo.compare import series

    colors = {name: number for number, name in enumerate(scaling.points)}
    who = " and ".join(colors) if len(colors) <= 2 else f"{len(colors)} language models"
    title = f"{who} at {len(scaling.sizes)} sizes"
    figure = draw(scaling, colors)
    drawn = {found.name: found for found in (figure,) if found is not None}
    bands = "; bands: their 95 % intervals" if any(len(curve.drawn) for curve in scaling.curves.values()) else ""
    crossed = "; dotted: where two of them cross" if scaling.crossings else ""
    headings = ("model", *(f"{humanize.count(size)} parameters" for size in scaling.sizes), "E", "a")
    reports = "".join(
        f'<li><a href="{series.PART}{size:.0f}/report.html">{humanize.count(size)} parameters</a></li>'
        for size in scaling.sizes
    )
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="caption">Validation loss in nats per token. {CAPTION}{bands}{crossed}.</p>' if drawn else "",
        chart(drawn, "scaling", colors),
        f'<div class="card scroll sizes">{tables.text_table(headings, series.rows(scaling), colors)}</div>',
        '<ul class="soft">' + "".join(f"<li>{escape(note)}</li>" for note in series.notes(scaling)) + "</ul>",
        f"<h2>The report of each size</h2>\n<ul>{reports}</ul>",
        f"<footer>The same figures are in {series.FILE}.</footer>",
    ]
    return drawn_page(title, sections, drawn)


def draw(scaling: Scaling, colors: Mapping[str, int]) -> Figure | None:
    """Draw the losses of all models that have any, and their curves."""
    means: list[dict[str, Any]] = []
    seeds: list[dict[str, Any]] = []
    for name, points in scaling.points.items():
        for point in points:
            if point.losses and point.flops:
                row = {"model": name, "flops": point.flops, "params": point.params}
                means.append(row | {"loss": sum(point.losses) / len(point.losses)})
                seeds += [row | {"loss": loss} for loss in point.losses]
    if not means:
        return None
    curves = [row for name in scaling.curves for row in _curve(scaling, name)]
    losses = [row["loss"] for row in [*seeds, *curves]]
    room = margin(losses)
    fields = [
        ("model", "model", ""),
        ("loss", "loss", ".4f"),
        ("params", "parameters", NUMBER),
        ("flops", FLOPS, NUMBER),
    ]
    crossings = [{"flops": crossing.flops} for crossing in scaling.crossings]
    dot = {"type": "point", "filled": True}
    plain: Spec = {"strokeDash": None}
    band = {"y": {"field": "low"}, "y2": {"field": "high"}, **plain}
    vertical = {"y": None, "color": {"value": SOFT}, **plain}
    layers: list[Spec] = [
        {"data": {"values": curves}, "mark": {"type": "area", "opacity": 0.2, "clip": True}, "encoding": band},
        {"data": {"values": curves}, "mark": LINE},
        {"data": {"values": seeds}, "mark": {**dot, "size": 18, "opacity": 0.6}, "encoding": plain},
        {"mark": {**dot, "size": 90, "opacity": 1}, "encoding": {"tooltip": tooltip(*fields), **plain}},
        {"data": {"values": crossings}, "mark": {"type": "rule", "strokeDash": [1, 4]}, "encoding": vertical},
    ]  # fmt: skip
    several = any("low" in row for row in curves)
    spec: Spec = {
        "width": "container",
        "height": 400,
        "data": {"values": means},
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"nice": False, "padding": 14}},
            "y": loss_channel(max(min(losses) - room, 1e-3), max(losses) + room),
            **model_channels(colors),
        },
        "layer": layers if several else layers[1:],
    }
    names = list(dict.fromkeys(row["model"] for row in means))
    axes = [Axis("FLOPs", "flops", FLOPS, log=True)]
    return Figure("scaling", "Validation loss by FLOPs of training", spec, axes, names, scales=("x", "y"))


def _curve(scaling: Scaling, name: str) -> list[dict[str, Any]]:
    """Return the points of a curve within the measured range, with the interval if there are several seeds."""
    curve = scaling.curves[name]
    flops_X = np.geomspace(*curve.flops, POINTS)
    rows: list[dict[str, Any]] = [
        {"model": name, "flops": flops, "loss": loss}
        for flops, loss in zip(flops_X.tolist(), curve.loss(flops_X).tolist(), strict=True)
    ]
    if len(curve.drawn):
        low_X, high_X = curve.band(flops_X).tolist()
        rows = [row | {"low": low, "high": high} for row, low, high in zip(rows, low_X, high_X, strict=True)]
    return rows
