"""Figures of the residual RMS of each model over its training, read from the logs of its runs.

A residual stream that grows without end, or in one block only, announces a training that diverges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmzoo.compare.figure import NUMBER, X_TICKS, Axis, Figure, Spec, color, tooltip
from lmzoo.compare.results import Results, model_colors
from lmzoo.errors import LmzooError
from lmzoo.runs.metrics import read_metrics

Row = Mapping[str, Any]  # tokens, block (0: before the first one), rms

PALEST = 0.25  # opacity of the line of the features before the first block


def read_activations(results: Results, folder: Path) -> dict[str, list[Row]]:
    """Return the residual RMS by tokens and block of each model, of its first run in `folder`.

    A model without a run there, or without such lines, is left out, as is one that failed a check.
    """
    found: dict[str, list[Row]] = {}
    for model in [*results.ranked, *results.unranked]:
        try:
            lines = read_metrics(folder / model.run) if model.run and model.status != "failed" else []
        except LmzooError:
            continue
        rows = [row for line in lines if line["split"] == "val" for row in _rows(line)]
        if len({row["tokens"] for row in rows}) > 1:
            found[model.name] = rows
    return found


def residual_rms(results: Results, activations: Mapping[str, Sequence[Row]]) -> list[Figure]:
    """Draw a small figure for each model, all with the same axes: residual RMS by tokens, a line for each block."""
    everything = [row for rows in activations.values() for row in rows]
    if not everything:
        return []
    values = [row["rms"] for row in everything]
    low, high = min(values) / 1.15, max(values) * 1.15
    scale = {"type": "log", "domain": [low, high], "nice": False}
    most_tokens = max(row["tokens"] for row in everything)
    fields = [("block", "after block", ""), ("rms", "RMS", ".4~g"), ("tokens", "tokens", NUMBER)]
    figures = []
    for name, number in model_colors(results).items():
        if name not in activations:
            continue
        last = max(row["block"] for row in activations[name])
        spec: Spec = {
            "width": "container",
            "height": 170,
            "data": {"values": list(activations[name])},
            "encoding": {
                "x": {"type": "quantitative", "axis": X_TICKS | {"tickCount": 4},
                      "scale": {"domain": [0, most_tokens], "nice": False}},
                "y": {"field": "rms", "type": "quantitative", "title": "residual RMS", "scale": scale,
                      "axis": {"values": ticks(low, high), "format": "~g", "labelOverlap": True}},
                "detail": {"field": "block", "type": "nominal"},
                "opacity": {"field": "block", "type": "quantitative", "legend": None,
                            "scale": {"domain": [0, max(last, 1)], "range": [PALEST, 1]}},
                "color": {"value": color(number)},
            },
            "layer": [
                {"mark": {"type": "line", "strokeWidth": 2, "strokeJoin": "round", "strokeCap": "round"}},
                {"mark": {"type": "point", "filled": True, "size": 60},
                 "encoding": {"opacity": {"value": 0}, "tooltip": tooltip(*fields)}},
            ],
        }  # fmt: skip
        axes = [Axis("tokens", "tokens", "tokens seen in training")]
        description = f"Residual RMS of {name} after each block while training"
        figures.append(Figure(f"activations-{len(figures) + 1}", description, spec, axes, [name], legend=False))
    return figures


def ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: powers of ten, and in a short range also their multiples."""
    multiples = (1, 2, 5) if high < 200 * low else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{multiple}e{exponent}") for exponent in exponents for multiple in multiples]
    return [tick for tick in found if low <= tick <= high]


def _rows(line: Mapping[str, Any]) -> list[Row]:
    """Return a row for each block of a line of the log; values that have no logarithm are left out."""
    activations = line.get("activations")
    values = activations.get("residual_rms") if isinstance(activations, Mapping) else None
    if not isinstance(values, list):
        return []
    return [
        {"tokens": line["tokens"], "block": block, "rms": value}
        for block, value in enumerate(values)
        if type(value) in (int, float) and 0 < value < math.inf
    ]
