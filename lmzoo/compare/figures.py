"""The figures of a comparison: ranking, loss while training, sensitivity to a tuned setting, loss against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmzoo.compare.figure import NUMBER, SOFT, X_TICKS, Axis, Figure, Spec, model_channels, reference_layers, tooltip
from lmzoo.compare.findings import place
from lmzoo.compare.results import ModelResult, Results, model_colors
from lmzoo.compare.statistics import CONFIDENCE

LOSS = "validation loss (nats per token)"
TRAINING = 3  # FLOPs of a training step in forward passes, as in budget.py
TIME_AXIS = "seconds of training steps"
COSTS = (
    Axis("decoding speed", "decode_tokens_per_s", "tokens per second, decoding", log=True),
    Axis("training speed", "train_tokens_per_s", "tokens per second, training", log=True),
    Axis("state", "state_bytes", "bytes of decoding state at full context", log=True),
    Axis("parameters", "params", "parameters", log=True),
    Axis("FLOPs", "flops_per_token", "FLOPs per token, forward pass", log=True),
)
MORE_IS_BETTER = ("decode_tokens_per_s", "train_tokens_per_s")


def figures(results: Results) -> list[Figure]:
    """Return the figures that the results allow, in the order of the report."""
    colors = model_colors(results)
    found = (ranking(results, colors), curves(results, colors), sensitivity(results, colors), costs(results, colors))
    return [figure for figure in found if figure is not None]


def ranking(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss of each ranked model with its interval and the losses of its seeds."""
    ranked = results.ranked
    if not ranked:
        return None
    rows: list[dict[str, Any]] = []
    seeds: list[dict[str, Any]] = []
    for model in ranked:
        label = f"{place(results, model.name)}   {model.name}"
        shown = {"model": model.name, "label": label, "loss": model.loss, "rank": place(results, model.name)}
        mean = results.statistics.means.get(model.name) if results.statistics else None
        rows.append(shown | ({"low": mean.low, "high": mean.high} if mean else {}))
        if len(results.seeds) > 1:
            seeds += [{"model": model.name, "label": label, "loss": cell.loss} for cell in model.cells]
    channels = model_channels(colors) | {"strokeDash": None}
    fields = [("model", "model", ""), ("rank", "rank", ""), ("loss", "loss", ".4f")]
    interval = [("low", "from", ".4f"), ("high", "to", ".4f")] if results.statistics else []
    layers: list[Spec] = [
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45},
         "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
        {"data": {"values": seeds}, "mark": {"type": "tick", "thickness": 1.5, "height": 9, "opacity": 0.8}},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
         "encoding": {"tooltip": tooltip(*fields, *interval)}},
    ]  # fmt: skip
    if results.statistics is None:
        layers = layers[1:] if seeds else layers[2:]
    best = results.best_reference
    spec: Spec = {
        "width": "container",
        "height": 27 * len(rows),
        "data": {"values": rows},
        "encoding": {
            "x": {"field": "loss", "type": "quantitative", "axis": X_TICKS | {"grid": True, "format": ""},
                  "scale": {"zero": False, "padding": 14}},
            "y": {"field": "label", "type": "nominal", "title": None, "sort": None,
                  "axis": {"labelColor": "var(--ink)", "labelPadding": 8, "grid": True}},
            **{name: channel for name, channel in channels.items() if channel},
        },
        "layer": layers + (reference_layers(best.name, best.loss, "x") if best else []),
    }  # fmt: skip
    return Figure("ranking", "Validation loss of each model", spec, [Axis("loss", "loss", LOSS)], legend=False)


def curves(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the validation loss over tokens, FLOPs or seconds of training, with a band of the seeds' interval."""
    models = [model for model in _all(results) if model.curve and model.status != "failed"]
    if not models:
        return None
    rows = [row for model in models for row in _curve(model)]
    diverged = any("diverged" in row for row in rows)
    axes = [Axis("tokens", "tokens", "tokens seen in training")]
    if any(row["flops"] for row in rows):
        axes.append(Axis("FLOPs", "flops", "FLOPs of training", log=True))
    if any(row["seconds"] for row in rows):
        axes.append(Axis("time", "seconds", TIME_AXIS, log=True))
    best = results.best_reference
    low, high = loss_range([model.curve for model in models], [line.loss for line in results.references])
    interval = [("low", "from", ".4f"), ("high", "to", ".4f")] if any("low" in row for row in rows) else []
    fields = [("model", "model", ""), ("loss", "loss", ".4f"), *interval, ("tokens", "tokens", NUMBER)]
    shown = "isValid(datum[axis]) && (datum[axis] > 0 || !log)"
    spec: Spec = {
        "width": "container",
        "height": 400,
        "data": {"values": rows},
        "transform": [{"filter": shown}],
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"nice": False}},
            "y": _loss_channel(low, high),
            **model_channels(colors),
        },
        "layer": [
            {"mark": {"type": "area", "opacity": 0.2, "clip": True},
             "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}, "strokeDash": None}},
            {"mark": {"type": "line", "clip": True, "strokeWidth": 2.25, "strokeJoin": "round", "strokeCap": "round"}},
            {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 0, "clip": True},
             "encoding": {"tooltip": tooltip(*fields), "strokeDash": None}},
            {"mark": {"type": "point", "shape": "cross", "filled": True, "angle": 45, "clip": True, "opacity": 1},
             "encoding": {
                 "size": {"condition": {"test": "datum.diverged", "value": 130}, "value": 0}, "strokeDash": None}},
            *(reference_layers(best.name, best.loss, "y") if best else []),
        ],
    }  # fmt: skip
    if not diverged:
        del spec["layer"][3]
    if not interval:
        del spec["layer"][0]
    names = [model.name for model in models]
    return Figure("loss", "Validation loss while training", spec, axes, names, scales=("x", "y"))


def sensitivity(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss of each model by the tuned setting; the chosen value is larger, a run that diverged is a cross."""
    if not results.tuning or not results.tuning["models"]:
        return None
    rows = [
        {
            "model": name,
            "value": trial["value"],
            "loss": trial["selection_loss"],
            "kind": "chosen" if trial["value"] == found["chosen"] else "tried",
        }
        for name, found in results.tuning["models"].items()
        for trial in found["tried"]
    ]
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    if not losses:
        return None
    margin = max(0.06 * (max(losses) - min(losses)), 0.02)
    low, high = max(min(losses) - margin, 1e-3), max(losses) + margin
    diverged = [row | {"loss": max(losses) + 0.6 * margin, "kind": "diverged"} for row in rows if row["loss"] is None]
    setting = results.tuning["setting"].replace("_", " ")
    fields = [("model", "model", ""), ("value", setting, ".3~r"), ("loss", "loss", ".4f"), ("kind", "", "")]
    values = sorted({row["value"] for row in rows})
    spec: Spec = {
        "width": "container",
        "height": 300,
        "data": {"values": [row for row in rows if row["loss"] is not None]},
        "encoding": {
            "x": {"type": "quantitative",
                  "axis": {"grid": False, "values": values, "format": ".3~r", "labelOverlap": True},
                  "scale": {"nice": False, "zero": False, "padding": 14}},
            "y": _loss_channel(low, high),
            **model_channels(colors),
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2.25}},
            {"mark": {"type": "point", "filled": True, "opacity": 1},
             "encoding": {
                 "size": {"condition": {"test": "datum.kind === 'chosen'", "value": 150}, "value": 28},
                 "tooltip": tooltip(*fields), "strokeDash": None}},
            {"data": {"values": diverged},
             "mark": {"type": "point", "shape": "cross", "filled": True, "size": 130, "angle": 45, "opacity": 1},
             "encoding": {"tooltip": tooltip(*fields[:2], fields[3]), "strokeDash": None}},
        ],
    }  # fmt: skip
    if not diverged:
        del spec["layer"][2]
    names = list(results.tuning["models"])
    description = f"Loss on the half of the validation split that chooses, by {setting}"
    return Figure("sensitivity", description, spec, [Axis(setting, "value", setting, log=True)], names, scales=("y",))


def costs(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss against each cost; a model that is certainly worse and costs no less is a hollow circle."""
    ranked = results.ranked
    axes = [axis for axis in COSTS if any(getattr(model, axis.field) for model in ranked)]
    if not axes:
        return None
    rows = []
    for model in ranked:
        row: dict[str, Any] = {"model": model.name, "loss": model.loss}
        mean = results.statistics.means.get(model.name) if results.statistics else None
        row |= {"low": mean.low, "high": mean.high} if mean else {}
        for axis in axes:
            row[axis.field] = getattr(model, axis.field) or None
            row[f"front:{axis.field}"] = model.name in pareto_front(results, axis.field)
        rows.append(row)
    fields = [("model", "model", ""), ("loss", "loss", ".4f"), *((axis.field, axis.label, NUMBER) for axis in axes)]
    losses = [row["loss"] for row in rows] + [row[end] for row in rows for end in ("low", "high") if end in row]
    margin = max(0.1 * (max(losses) - min(losses)), 0.02)
    point = {"type": "point", "size": 130, "strokeWidth": 2, "opacity": 1}
    channels = {name: channel for name, channel in model_channels(colors).items() if name != "strokeDash"}
    fill = {"condition": {"test": "datum['front:' + axis]", **channels["color"]}, "value": "var(--card)"}
    spec: Spec = {
        "width": "container",
        "height": 340,
        "data": {"values": rows},
        "transform": [{"filter": "isValid(datum[axis])"}],
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"nice": False, "zero": False, "padding": 45}},
            "y": _loss_channel(max(min(losses) - margin, 1e-3), max(losses) + margin),
            **channels,
        },
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.45},
             "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}}},
            {"mark": point, "encoding": {"fill": fill, "tooltip": tooltip(*fields)}},
            {"mark": {"type": "text", "dy": -13}, "encoding": {"text": {"field": "model"}, "color": {"value": SOFT}}},
        ],
    }  # fmt: skip
    if results.statistics is None:
        del spec["layer"][0]
    names = [model.name for model in ranked]
    return Figure("cost", "Loss against cost", spec, axes, names, scales=("x", "y"), legend=False)


def pareto_front(results: Results, cost: str) -> list[str]:
    """Return the ranked models of which no other one is certainly better at the same cost or at a lower one.

    With several seeds, "certainly" is what the statistics say; a model without the cost is not compared.
    """
    sign = -1 if cost in MORE_IS_BETTER else 1
    paid = {model.name: sign * value for model in results.ranked if (value := getattr(model, cost))}
    worse = _certainly_worse(results)
    return [name for name in paid if not any((name, other) in worse and paid[other] <= paid[name] for other in paid)]


def loss_range(curves: Sequence[Sequence[Sequence[float]]], references: Sequence[float]) -> tuple[float, float]:
    """Return the losses to show: from the lowest up to the unigram or the second evaluations, with a margin.

    With the initial loss, ln V, in the range, all differences would be pressed into the lowest part of the chart, so
    the first steep part of the curves is cut off at the top. The lower end is above zero, for a logarithmic axis.
    """
    losses = [[loss for _, loss in points] for points in curves]
    lowest = min([loss for each in losses for loss in each] + list(references), default=0.0)
    ends = [each[-1] for each in losses]
    starts = [each[1] if len(each) > 2 else each[0] for each in losses]
    unigram = max(references, default=max(starts, default=1.0))
    highest = max([*ends, min(unigram, max(starts, default=unigram))], default=1.0)
    margin = max(0.06 * (highest - lowest), 0.02)
    return max(1e-3, lowest - margin), highest + margin


def _all(results: Results) -> list[ModelResult]:
    return [*results.ranked, *results.unranked]


def _certainly_worse(results: Results) -> set[tuple[str, str]]:
    """Return pairs (worse, better) of ranked models."""
    if results.statistics is not None:
        pairs = [pair for pair in results.statistics.pairs if pair.told_apart]
        return {(p.second, p.first) if p.difference < 0 else (p.first, p.second) for p in pairs}
    if len(results.seeds) > 1:
        return set()
    ranked = [(model.name, model.loss) for model in results.ranked if model.loss is not None]
    return {(name, other) for name, loss in ranked for other, lower in ranked if lower < loss}


def _loss_channel(low: float, high: float) -> Spec:
    scale = {"domain": [low, high], "nice": False}
    return {
        "field": "loss",
        "type": "quantitative",
        "title": LOSS,
        "scale": scale,
        "axis": {"tickCount": 7, "format": ".3~r"},
    }


def _curve(model: ModelResult) -> list[dict[str, Any]]:
    """Return a row for each evaluation of a model: the means over its seeds, and the interval."""
    bands = _bands(model)
    speed, flops = model.train_tokens_per_s, TRAINING * model.flops_per_token
    rows = []
    for tokens, loss in model.curve:
        row: dict[str, Any] = {"model": model.name, "tokens": tokens, "loss": loss}
        row |= {"flops": flops * tokens or None, "seconds": tokens / speed if speed else None}
        if tokens in bands:
            row["low"], row["high"] = bands[tokens]
        rows.append(row)
    if model.status == "diverged":
        rows[-1]["diverged"] = True
    return rows


def _bands(model: ModelResult) -> dict[float, tuple[float, float]]:
    """Return the confidence interval of the mean over the seeds at each point that all finished ones have."""
    found = [{point[0]: point[1] for point in cell.curve} for cell in model.cells if cell.status == "trained"]
    if len(found) < 2:
        return {}
    from scipy import stats

    shared = [tokens for tokens in found[0] if all(tokens in curve for curve in found)]
    losses_NP = np.array([[curve[tokens] for tokens in shared] for curve in found])
    mean_P = losses_NP.mean(axis=0)
    error_P = np.maximum(stats.sem(losses_NP, axis=0), math.ulp(1.0))  # of equal losses: an interval without a width
    low_P, high_P = stats.t.interval(CONFIDENCE, len(found) - 1, loc=mean_P, scale=error_P)
    return dict(zip(shared, zip(low_P.tolist(), high_P.tolist(), strict=True), strict=True))
