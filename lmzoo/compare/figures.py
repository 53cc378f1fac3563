"""The figures of a comparison, of which this file draws the ranking and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo.compare.activations import Activations
from lmzoo.compare.figure import (
    LINE,
    LOSS,
    NUMBER,
    X_TICKS,
    Axis,
    Figure,
    Spec,
    color_channel,
    interval_fields,
    loss_channel,
    margin,
    model_channels,
    reference_layers,
    tooltip,
)
from lmzoo.compare.figure_of_costs import costs
from lmzoo.compare.figure_of_probes import probes
from lmzoo.compare.figures_of_activations import activation_figures
from lmzoo.compare.figures_of_losses import classes, positions
from lmzoo.compare.figures_of_tuning import sensitivities
from lmzoo.compare.findings import place
from lmzoo.compare.results import TRAINING_PASSES, ModelResult, Results, model_colors
from lmzoo.compare.statistics import intervals

TIME_AXIS = "seconds of training steps"


def figures(results: Results, activations: Activations | None = None) -> list[Figure]:
    """Return the figures that the results allow, in the order of the report.

    `activations` is what `read_activations` found in the runs.
    """
    colors = model_colors(results)
    first, last = (
        [draw(results, colors) for draw in group] for group in ((ranking, curves), (positions, classes, costs))
    )
    found = [*first, *sensitivities(results, colors), *last, probes(results)]
    return [
        *(figure for figure in found if figure is not None),
        *activation_figures(activations or Activations(), colors),
    ]


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
        mean = results.means.get(model.name)
        rows.append(shown | ({"loss": mean.mean, "low": mean.low, "high": mean.high} if mean else {}))
        if len(results.seeds) > 1:
            seeds += [{"model": model.name, "label": label, "loss": cell.loss} for cell in model.cells]
    fields = [("model", "model", ""), ("rank", "rank", ""), ("loss", "loss", ".4f")]
    interval = interval_fields(results.statistics is not None)
    layers: list[Spec] = [
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45},
         "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
        {"data": {"values": seeds}, "mark": {"type": "tick", "thickness": 1.5, "height": 9, "opacity": 0.8}},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
         "encoding": {"tooltip": tooltip(*fields, *interval)}},
    ]  # fmt: skip
    if results.statistics is None:
        layers = layers[1:] if seeds else layers[2:]
    spec: Spec = {
        "width": "container",
        "height": 27 * len(rows),
        "data": {"values": rows},
        "encoding": {
            "x": {"field": "loss", "type": "quantitative",
                  "axis": X_TICKS | {"grid": True, "format": "", "titleAnchor": "end"},  # room beside long names
                  "scale": {"zero": False, "padding": 14}},
            "y": {"field": "label", "type": "nominal", "title": None, "sort": None,
                  "axis": {"labelColor": "var(--ink)", "labelPadding": 8, "grid": True}},
            **color_channel(colors),
        },
        "layer": layers + _references(results, "x", shown=[*rows, *seeds]),
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
    references = [line.loss for line in results.references] + _limits(results)
    low, high = loss_range([model.curve for model in models], references)
    interval = interval_fields(any("low" in row for row in rows))
    fields = [("model", "model", ""), ("loss", "loss", ".4f"), *interval, ("tokens", "tokens", NUMBER)]
    shown = "isValid(datum[axis]) && (datum[axis] > 0 || !log)"
    spec: Spec = {
        "width": "container",
        "height": 400,
        "data": {"values": rows},
        "transform": [{"filter": shown}],
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"nice": False}},
            "y": loss_channel(low, high),
            **model_channels(colors),
        },
        "layer": [
            {"mark": {"type": "area", "opacity": 0.2, "clip": True},
             "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}, "strokeDash": None}},
            {"mark": LINE},
            {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 0, "clip": True},
             "encoding": {"tooltip": tooltip(*fields), "strokeDash": None}},
            {"mark": {"type": "point", "shape": "cross", "filled": True, "angle": 45, "clip": True, "opacity": 1},
             "encoding": {
                 "size": {"condition": {"test": "datum.diverged", "value": 130}, "value": 0}, "strokeDash": None}},
            *_references(results, "y"),
        ],
    }  # fmt: skip
    if all(len(model.curve) == 1 for model in models):  # a single evaluation has neither a line nor an area
        spec["layer"][0]["mark"] = {"type": "rule", "strokeWidth": 3, "opacity": 0.45}
        spec["layer"][2]["mark"]["opacity"] = 1
        spec["encoding"]["x"]["scale"]["padding"] = 14  # or else the points are on the edge
    if not diverged:
        del spec["layer"][3]
    if not interval:
        del spec["layer"][0]
    names = [model.name for model in models]
    return Figure("loss", "Validation loss while training", spec, axes, names, scales=("x", "y"))


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
    room = margin([lowest, highest])
    return max(1e-3, lowest - room), highest + room


def _all(results: Results) -> list[ModelResult]:
    return [*results.ranked, *results.unranked]


def _limits(results: Results) -> list[float]:
    """Return the entropy rate of a synthetic source in nats per token, if it is known."""
    rate = results.corpus.get("entropy_rate")
    return [rate["nats"]] if rate else []


def _references(results: Results, channel: str, shown: Sequence[Mapping[str, Any]] = ()) -> list[Spec]:
    """Return the lines at the loss of the best n-gram and at the entropy rate.

    On the x axis, the label of a line in the upper half of the losses that are `shown` stands before it: there may be
    no room after it.
    """
    best = results.best_reference
    lines = [(best.name, best.loss, False)] if best else []
    lines += [("entropy rate", nats, True) for nats in _limits(results)]
    losses = [row[key] for row in shown for key in ("loss", "low", "high") if row.get(key) is not None]
    losses += [loss for _, loss, _ in lines]
    layers: list[Spec] = []
    for name, loss, below in lines:
        before = channel == "x" and loss > (min(losses) + max(losses)) / 2
        layers += reference_layers(name, loss, channel, below=below, before=before)
    return layers


def _curve(model: ModelResult) -> list[dict[str, Any]]:
    """Return a row for each evaluation of a model: the means over its seeds, and the interval."""
    finished = [cell for cell in model.cells if cell.status == "trained"]
    bands = intervals([{point[0]: point[1] for point in cell.curve} for cell in finished])
    speed, flops = model.train_tokens_per_s, TRAINING_PASSES * model.flops_per_token
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
