"""The heat map of a comparison: models by probes, difficulty and length, colored by the way from chance to solved."""

from __future__ import annotations

from typing import Any

from lmzoo.compare.figure import Axis, Figure, Spec, tooltip
from lmzoo.compare.probe_tables import BOTH, facts, level_name, names, probed
from lmzoo.compare.results import Results

FULLEST = 0.65  # opacity of a solved field: its text is still easy to read
PALEST = 0.04
_ROW = 24  # pixels


def probes(results: Results) -> Figure | None:
    """Draw the accuracy of each model on each level, at the length of training and at the greater one."""
    from lmzoo.probing.report import progress
    from lmzoo.probing.table import SOLVED, entry

    found = probed(results)
    if found is None:
        return None
    models = names(results, found)
    rows: list[dict[str, Any]] = []
    for level in found.levels:
        for trained, _ in BOTH:
            length, chance, solved = facts(level, trained=trained)
            label = f"{level_name(level)}, {length}"
            for model in models:
                cells = found.of(model, level)
                share = progress(cells, trained=trained, chance=chance, solved=solved)
                text = entry(cells, trained, chance, solved)
                row = {"model": model, "label": label, "chance": chance, "from": solved, "accuracy": text}
                # A field is as narrow as four digits on a phone: solved ones are bold, and the tooltip has the mark.
                short = "✕" if share is None else f"{float(text.split()[-1]):.2f}"
                rows.append(row | {"share": share, "text": short, "solved": text.startswith(SOLVED)})
    labels = list(dict.fromkeys(row["label"] for row in rows))
    fields = [("model", "model", ""), ("label", "probe, length", ""), ("accuracy", "accuracy", ""),
              ("chance", "chance", ".3f"), ("from", "solved from", ".3f")]  # fmt: skip
    spec: Spec = {
        "width": "container",
        "height": _ROW * len(labels),
        "data": {"values": rows},
        "encoding": {
            "x": {"type": "nominal", "sort": models, "scale": {"padding": 0.04},
                  "axis": {"orient": "top", "labelAngle": -90, "labelLimit": 110, "labelColor": "var(--ink)",
                           "domain": False, "ticks": False}},
            "y": {"field": "label", "type": "nominal", "title": None, "sort": labels, "scale": {"padding": 0.04},
                  "axis": {"labelColor": "var(--ink)", "labelPadding": 8}},
        },
        "layer": [
            {"transform": [{"filter": "isValid(datum.share)"}],
             "mark": {"type": "rect", "color": "var(--s2)", "cornerRadius": 3},
             "encoding": {
                 "opacity": {"field": "share", "type": "quantitative", "legend": None,
                             "scale": {"domain": [0, 1], "range": [PALEST, FULLEST]}},
                 "tooltip": tooltip(*fields)}},
            {"mark": {"type": "text", "color": "var(--ink)", "fontSize": 11,
                      "fontWeight": {"expr": "datum.solved ? 'bold' : 'normal'"}},
             "encoding": {"text": {"field": "text"}, "tooltip": tooltip(*fields)}},
        ],
    }  # fmt: skip
    axes = [Axis("model", "model", "")]
    return Figure("probes", "Accuracy of each model on each probe", spec, axes, models, legend=False)
