"""The figures of a comparison that show how sensitive each model is to a tuned setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.compare.figure import Axis, Figure, Spec, loss_channel, margin, model_channels, tooltip
from lmzoo.compare.results import STOPPED, Results
from lmzoo.compare.tune import FINAL, WARMUP
from lmzoo.compare.tuning import Search, begun, setting_title

_FORMATS = {FINAL: ".1~%", WARMUP: ","}
PALEST = 0.35  # opacity of the losses after the first part of the training


def sensitivities(results: Results, colors: dict[str, int]) -> list[Figure]:
    """Draw a figure for each tuned setting."""
    found = (_sensitivity(search, sensitivity_name(results, search), colors) for search in begun(results))
    return [figure for figure in found if figure is not None]


def sensitivity_name(results: Results, search: Search) -> str:
    """Return the name of the figure of a search."""
    first = search["setting"] == results.tuning["setting"]
    return "sensitivity" if first else f"sensitivity-{search['setting']}"


def _sensitivity(search: Search, name: str, colors: dict[str, int]) -> Figure | None:
    """Draw the loss of each model by the tuned setting; the chosen value is larger, a run that diverged is a cross.

    With successive halving, there is a line for each part of the training.
    """
    rows = [row for model, found in search["models"].items() for row in _rows(model, found)]
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    if not losses:
        return None
    room = margin(losses)
    low, high = max(min(losses) - room, 1e-3), max(losses) + room
    diverged = [row | {"loss": max(losses) + 0.6 * room, "kind": "diverged"} for row in rows if row["loss"] is None]
    title, form = setting_title(search["setting"]), _FORMATS.get(search["setting"], ".3~r")
    parts = sorted({row.get("part", 0) for row in rows})
    steps = [("steps", "steps", ",")] if len(parts) > 1 else []
    fields = [("model", "model", ""), ("value", title, form), ("loss", "loss", ".4f"), *steps, ("kind", "", "")]
    values = sorted({row["value"] for row in rows})
    spec: Spec = {
        "width": "container",
        "height": 300,
        "data": {"values": [row for row in rows if row["loss"] is not None]},
        "encoding": {
            "x": {"type": "quantitative",
                  "axis": {"grid": False, "values": values, "format": form, "labelOverlap": True},
                  "scale": {"nice": False, "zero": False, "padding": 14}},
            "y": loss_channel(low, high),
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
             "encoding": {"tooltip": tooltip(*fields[:2], fields[-1]), "strokeDash": None}},
        ],
    }  # fmt: skip
    if not diverged:
        del spec["layer"][2]
    if steps:
        scale = {"domain": parts, "range": [PALEST, 1]}
        spec["encoding"]["opacity"] = {"field": "part", "type": "ordinal", "scale": scale, "legend": None}
    axis = Axis(
        title, "value", title + (" (share of the highest)" if search["setting"] == FINAL else ""), min(values) > 0
    )
    description = f"Loss on the half of the validation split that chooses, by {title}"
    return Figure(name, description, spec, [axis], list(search["models"]), scales=("y",))


def _rows(model: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each value that was tried, and each part of the training after which losses were compared."""
    rows = []
    for trial in found["tried"]:
        row = {"model": model, "value": trial["value"]}
        last = "chosen" if trial["value"] == found["chosen"] else "stopped" if trial["status"] == STOPPED else "tried"
        if "parts" not in trial:
            rows.append({**row, "loss": trial["selection_loss"], "kind": last})
            continue
        for number, (steps, loss) in enumerate(trial["parts"]):
            kind = last if number + 1 == len(trial["parts"]) else "tried"
            rows.append({**row, "loss": loss, "kind": kind, "part": number, "steps": steps})
    return rows
