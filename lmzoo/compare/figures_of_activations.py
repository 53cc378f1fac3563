"""Figures of the activation statistics of each model: over its training, and by position.

What grows without end, or jumps, announces a training that diverges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo.compare.activations import Activations, Row
from lmzoo.compare.figure import NUMBER, SOFT, X_TICKS, Axis, Figure, Spec, color, model_channels, tooltip

PALEST = 0.25  # opacity of the line of the features before the first block
DASHES = {  # of the lines of roles of parameters, see `lmzoo.roles`; constants have no gradient
    "matrix": [1, 0],
    "matrices": [12, 3],
    "embedding": [6, 4],
    "head": [2, 3],
    "vector": [9, 3, 2, 3],
}
TRAINING = Axis("tokens", "tokens", "tokens seen in training")
LINE = {"type": "line", "clip": True, "strokeWidth": 2, "strokeJoin": "round", "strokeCap": "round"}
_HEIGHT, _SMALL_HEIGHT = 220, 170


def activation_figures(activations: Activations, colors: dict[str, int]) -> list[Figure]:
    """Return the figures that the logs of the runs allow, of all models together and then of each one."""
    together = [draw(activations, colors) for draw in (largest_logit, state_norm, router_load)]
    found = [figure for figure in together if figure is not None]
    return [*found, *residual_rms(activations, colors), *grad_norms(activations, colors)]


def largest_logit(activations: Activations, colors: dict[str, int]) -> Figure | None:
    """Draw the largest absolute value of a logit over the training of each model."""
    rows = _together(activations.largest_logit)
    if not rows:
        return None
    fields = [("model", "model", ""), ("logit", "largest logit", ".4~g"), ("tokens", "tokens", NUMBER)]
    spec = _lines(rows, _log_channel("logit", "largest logit", rows), fields, colors)
    spec["encoding"]["x"] = _tokens(rows)
    return Figure("largest-logit", "Largest logit while training", spec, [TRAINING], list(activations.largest_logit))


def state_norm(activations: Activations, colors: dict[str, int]) -> Figure | None:
    """Draw the norm of the state by the number of tokens read, at the last evaluation of each model."""
    rows = _together(activations.state_norm)
    if not rows:
        return None
    fields = [("model", "model", ""), ("norm", "norm of the state", ".4~g"), ("position", "tokens read", ",")]
    spec = _lines(rows, _log_channel("norm", "norm of the state", rows), fields, colors)
    spec["encoding"]["x"] = {
        "type": "quantitative",
        "axis": X_TICKS | {"format": ",", "tickCount": 4, "labelOverlap": True},
        "scale": {"domain": [1, max(row["position"] for row in rows)], "nice": False, "base": 2},
    }
    axes = [Axis("tokens read", "position", "tokens read", log=True)]
    return Figure("state-norm", "Norm of the state by position", spec, axes, list(activations.state_norm))


def router_load(activations: Activations, colors: dict[str, int]) -> Figure | None:
    """Draw the least and the most used expert of all layers over the training of each model, as a band."""
    rows = _together(activations.router_load)
    if not rows:
        return None
    fields = [("model", "model", ""), ("most", "most used", ".3~r"), ("most_layer", "layer of the most used", ""),
              ("least", "least used", ".3~r"), ("least_layer", "layer of the least used", ""),
              ("tokens", "tokens", NUMBER)]  # fmt: skip
    highest = max(1.0, *(row["most"] for row in rows))
    y = {"type": "quantitative", "title": "load of an expert, even share = 1", "axis": {"tickCount": 5},
         "scale": {"domain": [0, 1.05 * highest], "nice": False}}  # fmt: skip
    spec: Spec = {
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": rows},
        "encoding": {"x": _tokens(rows), **model_channels(colors)},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.2},
             "encoding": {"y": y | {"field": "least"}, "y2": {"field": "most"}, "strokeDash": None}},
            {"mark": LINE, "encoding": {"y": y | {"field": "least"}}},
            {"mark": LINE, "encoding": {"y": y | {"field": "most"}}},
            {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 0},
             "encoding": {"y": y | {"field": "most"}, "tooltip": tooltip(*fields), "strokeDash": None}},
            {"data": {"values": [{"share": 1}]},
             "mark": {"type": "rule", "strokeDash": [2, 3]},
             "encoding": {"x": None, "y": {"field": "share", "type": "quantitative"}, "color": {"value": SOFT},
                          "strokeDash": None}},
        ],
    }  # fmt: skip
    return Figure("router-load", "Load of the experts while training", spec, [TRAINING], list(activations.router_load))


def residual_rms(activations: Activations, colors: dict[str, int]) -> list[Figure]:
    """Draw residual RMS by tokens for each model, with a line for each block."""
    everything = _together(activations.residual_rms)
    last = {name: max(row["block"] for row in rows) for name, rows in activations.residual_rms.items()}
    fields = [("block", "after block", ""), ("rms", "RMS", ".4~g"), ("tokens", "tokens", NUMBER)]
    figures = []
    for name, rows in activations.residual_rms.items():
        channels = {
            "detail": {"field": "block", "type": "nominal"},
            "opacity": {"field": "block", "type": "quantitative", "legend": None,
                        "scale": {"domain": [0, max(last[name], 1)], "range": [PALEST, 1]}},
        }  # fmt: skip
        spec = _small(rows, everything, ("rms", "residual RMS"), fields, channels, color(colors[name]))
        description = f"Residual RMS of {name} after each block while training"
        figures.append(Figure(f"activations-{len(figures) + 1}", description, spec, [TRAINING], [name], legend=False))
    return figures


def grad_norms(activations: Activations, colors: dict[str, int]) -> list[Figure]:
    """Draw the gradient norm by tokens for each model, with a line for each role of parameters."""
    everything = _together(activations.grad_norms)
    roles = [role for role in DASHES if any(row["role"] == role for row in everything)]
    channels = {
        "strokeDash": {"field": "role", "type": "nominal",
                       "legend": {"orient": "bottom", "columns": 3, "symbolSize": 500},
                       "scale": {"domain": roles, "range": [DASHES[role] for role in roles]}},
    }  # fmt: skip
    fields = [("role", "role", ""), ("norm", "gradient norm", ".4~g"), ("tokens", "tokens", NUMBER)]
    figures = []
    for name, rows in activations.grad_norms.items():
        spec = _small(rows, everything, ("norm", "gradient norm"), fields, channels, color(colors[name]))
        description = f"Gradient norm of {name} by role of parameters while training"
        figures.append(Figure(f"gradients-{len(figures) + 1}", description, spec, [TRAINING], [name], legend=False))
    return figures


def _small(
    rows: Sequence[Row],
    everything: Sequence[Row],
    shown: tuple[str, str],
    fields: Sequence[tuple[str, str, str]],
    channels: Spec,
    stroke: str,
) -> Spec:
    """Return a small figure of one model: the value `shown` (field, title) by tokens, in lines told by `channels`.

    The axes fit the rows of all models, `everything`.
    """
    return {
        "width": "container",
        "height": _SMALL_HEIGHT,
        "data": {"values": list(rows)},
        "encoding": {
            "x": _tokens(everything),
            "y": _log_channel(*shown, everything),
            "color": {"value": stroke},
            **channels,
        },
        "layer": [
            {"mark": LINE},
            {"mark": {"type": "point", "filled": True, "size": 60},
             "encoding": {"opacity": {"value": 0}, "strokeDash": None, "tooltip": tooltip(*fields)}},
        ],
    }  # fmt: skip


def ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: powers of ten, and in a short range also their multiples."""
    multiples = (1, 2, 5) if high < 200 * low else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{multiple}e{exponent}") for exponent in exponents for multiple in multiples]
    return [tick for tick in found if low <= tick <= high]


def _together(by_model: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Return the rows of all models, each with its `model`."""
    return [{"model": name, **row} for name, rows in by_model.items() for row in rows]


def _tokens(rows: Sequence[Row]) -> Spec:
    """Return the encoding of the tokens seen in training on the x axis, from 0 to the last row."""
    domain = [0, max(row["tokens"] for row in rows)]
    return {"type": "quantitative", "axis": X_TICKS | {"tickCount": 4}, "scale": {"domain": domain, "nice": False}}


def _log_channel(name: str, title: str, rows: Sequence[Row]) -> Spec:
    """Return the encoding of positive values on a logarithmic y axis, with a margin."""
    low, high = min(row[name] for row in rows) / 1.15, max(row[name] for row in rows) * 1.15
    return {
        "field": name,
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "axis": {"values": ticks(low, high), "format": "~g", "labelOverlap": True},
    }


def _lines(rows: Sequence[Row], y: Spec, fields: Sequence[tuple[str, str, str]], colors: dict[str, int]) -> Spec:
    """Return a line for each model, with tooltips; the x axis is to be added."""
    return {
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": list(rows)},
        "encoding": {"y": y, **model_channels(colors)},
        "layer": [
            {"mark": LINE},
            {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 0},
             "encoding": {"tooltip": tooltip(*fields), "strokeDash": None}},
        ],
    }  # fmt: skip
