"""The figure of the loss against what a model costs, and its Pareto front."""

from __future__ import annotations

from typing import Any

from lmzoo.compare.figure import NUMBER, SOFT, X_TICKS, Axis, Figure, Spec, color_channel, loss_channel, tooltip
from lmzoo.compare.results import Results

COSTS = (
    Axis("decoding speed", "decode_tokens_per_s", "tokens per second, decoding", log=True),
    Axis("training speed", "train_tokens_per_s", "tokens per second, training", log=True),
    Axis("state", "state_bytes", "bytes of decoding state at full context", log=True),
    Axis("parameters", "params", "parameters", log=True),
    Axis("FLOPs", "flops_per_token", "FLOPs per token, forward pass", log=True),
)
LABEL = 200  # pixels of the name of a model, of which longer ones are cut
MORE_IS_BETTER = ("decode_tokens_per_s", "train_tokens_per_s")


def costs(results: Results, colors: dict[str, int]) -> Figure | None:
    """Draw the loss against each cost; a model that is certainly worse and costs no less is a hollow circle."""
    ranked = results.ranked
    axes = [axis for axis in COSTS if any(getattr(model, axis.field) for model in ranked)]
    if not axes:
        return None
    rows = []
    for model in ranked:
        row: dict[str, Any] = {"model": model.name, "loss": model.loss}
        mean = results.means.get(model.name)
        row |= {"loss": mean.mean, "low": mean.low, "high": mean.high} if mean else {}
        for axis in axes:
            row[axis.field] = getattr(model, axis.field) or None
            row[f"front:{axis.field}"] = model.name in pareto_front(results, axis.field)
        rows.append(row)
    fields = [("model", "model", ""), ("loss", "loss", ".4f"), *((axis.field, axis.label, NUMBER) for axis in axes)]
    losses = [row["loss"] for row in rows] + [row[end] for row in rows for end in ("low", "high") if end in row]
    margin = max(0.1 * (max(losses) - min(losses)), 0.02)
    point = {"type": "point", "size": 130, "strokeWidth": 2, "opacity": 1}
    channels = color_channel(colors)
    fill = {"condition": {"test": "datum['front:' + axis]", **channels["color"]}, "value": "var(--card)"}
    spec: Spec = {
        "width": "container",
        "height": 340,
        "data": {"values": rows},
        "transform": [{"filter": "isValid(datum[axis])"}],
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"nice": False, "zero": False, "padding": 45}},
            "y": loss_channel(max(min(losses) - margin, 1e-3), max(losses) + margin),
            **channels,
        },
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.45},
             "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}}},
            {"mark": point, "encoding": {"fill": fill, "tooltip": tooltip(*fields)}},
            {"mark": {"type": "text", "dy": -13, "limit": LABEL},
             "encoding": {"text": {"field": "model"}, "color": {"value": SOFT}}},
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


def _certainly_worse(results: Results) -> set[tuple[str, str]]:
    """Return pairs (worse, better) of ranked models."""
    if results.statistics is not None:
        pairs = [pair for pair in results.statistics.pairs if pair.told_apart]
        return {(p.second, p.first) if p.difference < 0 else (p.first, p.second) for p in pairs}
    if len(results.seeds) > 1:
        return set()
    ranked = [(model.name, model.loss) for model in results.ranked if model.loss is not None]
    return {(name, other) for name, loss in ranked for other, lower in ranked if lower < loss}
