"""Figures of where the loss of each model comes from: by position in the window, and by class of token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo.compare.figure import (
    LINE,
    LOSS,
    SOFT,
    X_TICKS,
    Axis,
    Figure,
    Spec,
    color_channel,
    interval_fields,
    loss_channel,
    margin,
    model_channels,
    tooltip,
)
from lmzoo.compare.loss_tables import positions_range
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.statistics import intervals

POSITION = "tokens before the target"
ALL = "all tokens"
_DOT, _GAP = 11, 14  # pixels: height of the row of one model, and distance between two classes


def positions(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss by the number of tokens before the target, with a mark at the training length if some go beyond.

    A point stands in the geometric middle of its range of positions.
    """
    rows = [row for model in results.ranked for row in _position_rows(model)]
    if not rows:
        return None
    trained, vocab_size = results.budget["context_length"], results.tokenizer["vocab_size"]
    interval = any("low" in row for row in rows)
    fields = [("model", "model", ""), ("range", POSITION, ""), ("loss", "loss", ".4f"), *interval_fields(interval)]
    spec: Spec = {
        "width": "container",
        "height": 320,
        "data": {"values": rows},
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS | {"format": ",", "labelOverlap": True},
                  "scale": {"nice": False, "base": 2, "padding": 6}},
            "y": loss_channel(*position_range(rows, trained, vocab_size)),
            **model_channels(colors),
        },
        "layer": [
            {"mark": {"type": "area", "opacity": 0.2, "clip": True},
             "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}, "strokeDash": None}},
            {"mark": LINE},
            {"mark": {"type": "point", "filled": True, "size": 40, "clip": True, "opacity": 1},
             "encoding": {"tooltip": tooltip(*fields), "strokeDash": None}},
            *(_training_length(trained) if any(row["position"] > trained for row in rows) else []),
        ],
    }  # fmt: skip
    if not interval:
        del spec["layer"][0]
    names = [model.name for model in results.ranked if model.by_position]
    axes = [Axis(POSITION, "position", POSITION, log=True)]
    return Figure("positions", "Validation loss by position in the window", spec, axes, names, scales=("y",))


def classes(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss of each model by class of the token to predict, as groups of dots."""
    models = [model for model in results.ranked if model.by_class]
    if not models:
        return None
    rows = [row for model in models for row in _class_rows(model, results.protocol["targets"])]
    losses = [row["loss"] for row in rows]
    if not losses:
        return None
    labels = list(dict.fromkeys(row["label"] for row in rows))
    interval = any("low" in row for row in rows)
    fields = [("model", "model", ""), ("class", "class", ""), ("loss", "loss", ".4f"), *interval_fields(interval)]
    room = margin(losses)
    names = [model.name for model in models]
    spec: Spec = {
        "width": "container",
        "height": len(labels) * (_DOT * len(models) + _GAP),
        "data": {"values": rows},
        "encoding": {
            "x": {"type": "quantitative",
                  "axis": X_TICKS | {"grid": True, "format": ".3~r", "titleAnchor": "end"},  # room beside long names
                  "scale": {"nice": False, "domain": [min(losses) - room, max(losses) + room]}},
            "y": {"field": "label", "type": "nominal", "title": None, "sort": labels,
                  "axis": {"labelColor": "var(--ink)", "labelPadding": 8, "grid": True, "tickBand": "extent"}},
            "yOffset": {"field": "model", "type": "nominal", "sort": names, "scale": {"domain": names}},
            **color_channel(colors),
        },
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.35, "clip": True},
             "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
             "encoding": {"tooltip": tooltip(*fields)}},
        ],
    }  # fmt: skip
    if not interval:
        del spec["layer"][0]
    return Figure("classes", "Validation loss by class of token", spec, [Axis("loss", "loss", LOSS)], names)


def position_range(rows: Sequence[Mapping[str, Any]], trained: int, vocab_size: int) -> tuple[float, float]:
    """Return the losses to show: all within the training length; beyond it, those up to ln V.

    A model can get worse than a uniform guess beyond its training length by any amount, which would press all other
    differences into the lowest part of the chart.
    """
    within = [row["loss"] for row in rows if row["position"] <= trained]
    beyond = [row["loss"] for row in rows if row["position"] > trained]
    lowest = min([*within, *beyond])
    highest = max([*within, *(min(loss, math.log(vocab_size)) for loss in beyond)])
    room = margin([lowest, highest])
    return max(1e-3, lowest - room), highest + room


def _position_rows(model: ModelResult) -> list[dict[str, Any]]:
    of_seeds = [{(part["first"], part["last"]): part["loss"] for part in cell.by_position} for cell in model.cells]
    between = intervals([losses for losses in of_seeds if losses])
    rows = []
    for part in model.by_position:
        first, last, loss = part["first"], part["last"], part["loss"]
        if loss is None:
            continue
        place = positions_range(first, last)
        row = {"model": model.name, "position": math.sqrt(first * last), "range": place, "loss": loss}
        rows.append(row | _ends(between.get((first, last))))
    return rows


def _class_rows(model: ModelResult, targets: int) -> list[dict[str, Any]]:
    """Return a row for all tokens together and for each class with tokens; the label of a class has its share."""
    cells = [cell for cell in model.cells if cell.by_class]
    of_seeds = [{part["name"]: part["loss"] for part in cell.by_class} | {ALL: cell.loss} for cell in cells]
    between = intervals(of_seeds)
    parts: list[Mapping[str, Any]] = [{"name": ALL, "loss": model.loss, "tokens": targets}, *model.by_class]
    return [
        {
            "model": model.name,
            "class": part["name"],
            "label": ALL if part["name"] == ALL else f"{part['name']} ({100 * part['tokens'] / targets:.1f} %)",
            "loss": part["loss"],
            **_ends(between.get(part["name"])),
        }
        for part in parts
        if part["loss"] is not None
    ]


def _ends(interval: tuple[float, float] | None) -> dict[str, float]:
    return {} if interval is None else {"low": interval[0], "high": interval[1]}


def _training_length(trained: int) -> list[Spec]:
    """Return a dashed line after the last position that the models were trained on, and its label."""
    shared: Spec = {"color": {"value": SOFT}, "strokeDash": None, "tooltip": None}
    data: Spec = {"values": [{"position": trained + 0.5, "text": f"training length {trained:,}"}]}
    return [
        {"data": data, "mark": {"type": "rule", "strokeDash": [2, 3]}, "encoding": {**shared, "y": None}},
        {
            "data": data,
            "mark": {"type": "text", "align": "right", "dx": -4, "dy": 2, "baseline": "top"},
            "encoding": {**shared, "y": {"value": 0}, "text": {"field": "text"}},
        },
    ]
