"""Makes the overview of the gallery: a filter, a plot of loss against costs, a card for each family, a time line.

gallery.js applies the filter and draws the plot by the Vega-Lite of the reports. Without a script all families show.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, get_args

from lmzoo import humanize
from lmzoo.compare.figure import LOOK, NUMBER, X_TICKS, Spec, tooltip
from lmzoo.gallery.facts import Facts
from lmzoo.gallery.measured import number, seeds
from lmzoo.model import StateGrowth

KINDS = {"classic": "s4", "attention": "s0", "linear": "s2", "hybrid": "s3"}  # and the CSS variable of their color
AXES = {  # of the plot: fields of results.json
    "state_bytes": "decoding state (bytes at the training length)",
    "params": "parameters",
    "flops_per_token": "FLOPs per token, forward",
    "train_tokens_per_s": "training speed (tokens per second)",
    "decode_tokens_per_s": "decoding speed (tokens per second)",
}
CAPTION = (  # of the plot
    "Filled: the mean of several seeds, at a learning rate that was searched for the family. Hollow: one run with the "
    "recipe of the preset. So do not compare a filled point with a hollow one, or two hollow ones that are close. A "
    "family whose speed was not measured is missing where the axis is a speed."
)


def overview(families: Sequence[Facts]) -> str:
    """Returns the overview as HTML; the page must load gallery.css, vega.js and gallery.js."""
    measured = [facts for facts in families if number(facts.family.results, "bits_per_byte") is not None]
    return "".join(
        [
            _filter(families),
            _plot(measured),
            '<div class="families">' + "".join(_card(facts) for facts in families) + "</div>",
            "<h2>Time line</h2>",
            _time_line(families),
        ]
    )


def traits(facts: Facts) -> dict[str, str]:
    """Returns what families are filtered by; several words are separated by spaces."""
    found = facts.model.traits
    return {
        "kind": str(facts.family.facts.get("kind", "")),
        "state": found.state_growth,
        "beyond": "yes" if found.extrapolates else "no",
        "parts": " ".join(parts(facts)),
    }


def parts(facts: Facts) -> list[str]:
    """Returns the files of lmzoo.layers that the model is built from."""
    modules = (type(module).__module__ for module in facts.model.modules())
    return sorted({name.removeprefix("lmzoo.layers.") for name in modules if name.startswith("lmzoo.layers.")})


def _filter(families: Sequence[Facts]) -> str:
    counts = Counter(part for facts in families for part in parts(facts))
    shared = sorted(part for part, count in counts.items() if 1 < count < len(families) / 2)
    return (
        '<form class="filter" autocomplete="off" hidden>'
        '<label>Name <input type="search" name="text" placeholder="mamba"></label>'
        + _select("kind", "Kind", {kind: kind for kind in KINDS})
        + _select("state", "State", {growth: growth for growth in get_args(StateGrowth)})
        + _select("beyond", "Past its context", {"yes": "goes on", "no": "slides a window"})
        + _select("parts", "Built from", {part: part for part in shared})
        + f'<output>{len(families)} families</output><button type="reset">All</button></form>'
    )


def _select(name: str, title: str, choices: Mapping[str, str]) -> str:
    options = "".join(f'<option value="{escape(key)}">{escape(words)}</option>' for key, words in choices.items())
    return f'<label>{title} <select name="{name}"><option value="">any</option>{options}</select></label>'


def _attributes(facts: Facts) -> str:
    pairs = {"family": facts.family.name, "title": facts.title, **traits(facts)}
    return " ".join(f'data-{name}="{escape(value)}"' for name, value in pairs.items())


def _card(facts: Facts) -> str:
    entry, model = facts.family.facts, facts.model
    bits = number(facts.family.results, "bits_per_byte")
    size = humanize.size(model.state_bytes(model.config.context_length))
    figures = [
        "" if bits is None else f"{bits:.3f} bits/byte",
        f"{humanize.count(model.num_params())} parameters",
        "no state" if model.traits.state_growth == "none" else f"{size} of state",
    ]
    return (
        f'<a class="family {escape(str(entry.get("kind", "")))}" href="{escape(facts.family.name)}.html" '
        f"{_attributes(facts)}><b>{escape(facts.title)} <i>{escape(str(entry.get('year', '')))}</i></b>"
        f"<span>{escape(str(entry.get('summary', '')))}</span>"
        f"<small>{escape(' · '.join(figure for figure in figures if figure))}</small></a>"
    )


def _time_line(families: Sequence[Facts]) -> str:
    def year(facts: Facts) -> int:
        return int(facts.family.facts.get("year", 0))

    rows = ""
    for when, group in groupby(sorted(families, key=year), key=year):
        links = "".join(
            f'<a class="{escape(str(facts.family.facts.get("kind", "")))}" href="{escape(facts.family.name)}.html" '
            f"{_attributes(facts)}>{escape(facts.title)}</a>"
            for facts in group
        )
        rows += f"<li><time>{when}</time><span>{links}</span></li>"
    return f'<ol class="time-line">{rows}</ol>'


def plot(families: Sequence[Facts]) -> tuple[Spec, dict[str, str]]:
    """Returns the Vega-Lite specification of the plot, and the fields and titles of the x axis that have data."""
    rows: list[dict[str, Any]] = []
    for facts in families:
        results = facts.family.results
        row = {"name": facts.title, "family": facts.family.name, "kind": facts.family.facts.get("kind", "")}
        row |= {"url": f"{facts.family.name}.html", "bits": results["bits_per_byte"], "seeds": seeds(results)}
        rows.append(row | {field: number(results, field) for field in AXES})
    axes = {field: title for field, title in AXES.items() if sum(bool(row[field]) for row in rows) > 1}
    shown = [(field, title, NUMBER) for field, title in axes.items()]
    outlines = [{"test": f"datum.kind === '{kind}'", "value": f"var(--{color})"} for kind, color in KINDS.items()]
    spec: Spec = {
        "description": "Bits per byte of the families against a cost",
        "config": dict(LOOK),
        "width": "container",
        "height": 380,
        "data": {"values": rows},
        "encoding": {
            "x": {"type": "quantitative", "axis": X_TICKS, "scale": {"type": "log", "nice": False, "padding": 12}},
            "y": {
                "field": "bits",
                "type": "quantitative",
                "title": "bits per byte",
                "scale": {"zero": False, "padding": 12},
            },
            "color": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": [*KINDS], "range": [f"var(--{color})" for color in KINDS.values()]},
                "legend": {"orient": "top", "symbolType": "circle"},
            },
            "href": {"field": "url"},
            "tooltip": tooltip(
                ("name", "family", ""), ("bits", "bits per byte", ".3f"), ("seeds", "seeds", ""), *shown
            ),
        },
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 80, "strokeWidth": 2, "cursor": "pointer"},
                "encoding": {
                    "fillOpacity": {"condition": {"test": "datum.seeds > 1", "value": 1}, "value": 0},
                    "stroke": {"condition": outlines, "value": "var(--soft)"},  # no scale, which would add a legend
                },
            },
            {
                "mark": {"type": "text", "dy": -9, "fontSize": 10, "limit": 90, "cursor": "pointer"},
                "encoding": {"text": {"field": "name"}, "color": {"value": "var(--soft)"}},
            },
        ],
    }
    return spec, axes


def _plot(families: Sequence[Facts]) -> str:
    if not families:
        return ""
    spec, axes = plot(families)
    data = json.dumps(spec, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    choices = "".join(f'<option value="{field}">{escape(title)}</option>' for field, title in axes.items())
    return (
        '<div class="card chart"><form class="axis" autocomplete="off" hidden><label>Loss against '
        f'<select name="axis">{choices}</select></label></form><div class="plot"></div>'
        "<noscript>The plot is drawn by a script.</noscript>"
        f'<script type="application/json" class="spec">{data}</script><p class="caption">{escape(CAPTION)}</p></div>'
    )
