"""A figure of the report: a Vega-Lite specification, the choices of its x axis, and how all figures look.

Colors are names of CSS variables of the report, so a figure follows light, dark and print without being drawn again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
N_COLORS = 8
LOSS = "validation loss (nats per token)"
SOFT, REFERENCE_DASH = "var(--soft)", [5, 4]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', sans-serif"
NUMBER = ".3~s"  # 12.3k
LINE = {"type": "line", "clip": True, "strokeWidth": 2.25, "strokeJoin": "round", "strokeCap": "round"}
X_TICKS = {"grid": False, "format": "~s", "tickCount": 6, "labelExpr": "datum.value ? datum.label : '0'"}  # not "0k"
LOOK: Mapping[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "gridColor": "var(--grid)",
        "domainColor": SOFT,
        "tickColor": SOFT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 200,
    },
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "symbolStrokeWidth": 2.25,
        "symbolType": "stroke",
        "symbolOpacity": 1,
        "title": None,
    },
    "text": {"color": SOFT, "fontSize": 12},
}


@dataclass(frozen=True)
class Axis:
    """A choice of the x axis: the text of its button, the field of the data, the title and the type of its scale."""

    label: str
    field: str
    title: str
    log: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure: its name (of a file), a description for screen readers, and its Vega-Lite specification.

    `axes` are the choices of the x axis; the field of the chosen one is also the parameter `axis` of the specification,
    and `log` tells whether it is logarithmic. `models` can be hidden: each row of the data has a `model`. `scales` are
    the axes that can be switched between linear and logarithmic. `legend` tells whether the models are shown by their
    colors alone, so that a figure without the controls of the report needs a legend.
    """

    name: str
    description: str
    spec: Spec
    axes: Sequence[Axis]
    models: Sequence[str] = ()
    scales: Sequence[str] = ()
    legend: bool = True

    @property
    def base(self) -> Spec:
        """The whole specification but for the x axis."""
        return {"description": self.description, "config": dict(LOOK), **copy.deepcopy(self.spec)}

    def drawn(self, axis: Axis) -> Spec:
        """Return the whole specification with one of the axes. report.js does the same in a browser."""
        spec = self.base
        x = spec["encoding"]["x"]
        x |= {"field": axis.field, "title": axis.title}
        if x["type"] == "quantitative":
            x["scale"]["type"] = "log" if axis.log else "linear"
        if axis.log:
            x["scale"].pop("zero", None)
        spec["params"] = [{"name": "axis", "value": axis.field}, {"name": "log", "value": axis.log}]
        return spec


def color(number: int) -> str:
    """Return the color of a model: colors repeat after the eighth, where lines are dashed."""
    return f"var(--s{number % N_COLORS})"


def model_channels(colors: Mapping[str, int]) -> Spec:
    """Return the encoding of the models by color and, beyond the eighth, by dashes. It never depends on the data."""
    names = list(colors)
    legend: Spec = {"legend": None}
    found: Spec = {
        "color": {
            "field": "model",
            "type": "nominal",
            "scale": {"domain": names, "range": [color(number) for number in colors.values()]},
            **legend,
        }
    }
    if len(names) > N_COLORS:
        dashes = [[1, 0] if number < N_COLORS else [6, 4] for number in colors.values()]
        found["strokeDash"] = {
            "field": "model",
            "type": "nominal",
            "scale": {"domain": names, "range": dashes},
            **legend,
        }
    return found


def color_channel(colors: Mapping[str, int]) -> Spec:
    """Return the encoding of the models by color alone, for marks that cannot be dashed."""
    return {"color": model_channels(colors)["color"]}


def interval_fields(shown: bool) -> list[tuple[str, str, str]]:
    """Return the ends of an interval as fields of a tooltip, if intervals are shown."""
    return [("low", "from", ".4f"), ("high", "to", ".4f")] if shown else []


def margin(losses: Sequence[float]) -> float:
    """Return the room to leave below and above losses."""
    return max(0.06 * (max(losses) - min(losses)), 0.02)


def tooltip(*fields: tuple[str, str, str]) -> list[Spec]:
    """Return the lines of a tooltip: (field, heading, number format or "")."""
    return [
        {"field": field, "title": title, **({"type": "quantitative", "format": form} if form else {"type": "nominal"})}
        for field, title, form in fields
    ]


def loss_channel(low: float, high: float) -> Spec:
    """Return the encoding of the loss on the y axis, from `low` to `high`."""
    scale = {"domain": [low, high], "nice": False}
    return {
        "field": "loss",
        "type": "quantitative",
        "title": LOSS,
        "scale": scale,
        "axis": {"tickCount": 7, "format": ".3~r"},
    }


def reference_layers(name: str, loss: float, channel: str, *, below: bool = False, before: bool = False) -> list[Spec]:
    """Return a dashed line at the loss of a reference, on the axis `channel` ("x" or "y"), and its label.

    On the x axis the label stands at the top, or `below` at the bottom, after the line or `before` it; on the y axis
    above the line, or `below` it.
    """
    other = "y" if channel == "x" else "x"
    up = below if channel == "x" else not below
    label = {"align": "right", "dx": -5} if before else {"align": "left", "dx": 5}
    label |= {"dy": -6 if up else 6, "baseline": "bottom" if up else "top"}
    start: Spec = {"value": "height"} if channel == "x" and below else {"value": 0}
    shared: Spec = {"color": {"value": SOFT}, "strokeDash": None, "tooltip": None}
    data: Spec = {"values": [{"loss": loss, "text": f"{name} {loss:.2f}"}]}
    return [
        {
            "data": data,
            "mark": {"type": "rule", "strokeDash": REFERENCE_DASH, "clip": True},
            "encoding": {**shared, other: None},
        },
        {
            "data": data,
            "mark": {"type": "text", "fontStyle": "italic", **label, "clip": True},
            "encoding": {**shared, other: start, "text": {"field": "text"}},
        },
    ]
