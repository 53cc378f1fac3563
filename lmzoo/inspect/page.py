"""Makes the page of `lmzoo inspect`: one self-contained HTML file for phones, print, and light or dark screens.

All outside text (tokens, names of runs) is escaped, and the page forbids itself every request. The text, the maps and
the figures are plain HTML; a script adds the details of the token that is pointed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from lmzoo import humanize
from lmzoo.compare.report import page
from lmzoo.inspect.images import data_uri
from lmzoo.inspect.inspection import Inspection, rounded
from lmzoo.inspect.page_of_layers import HINT, layer_figures, layer_numbers
from lmzoo.inspect.pieces import named, shown
from lmzoo.storage import atomic

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
LARGE = 0.95  # quantile of the surprises from which a token has the full color: a few outliers would pale the others
INFLUENCE = (
    "Row t: the tokens that influenced the prediction of the token after t, by |d logit / d embedding|. The most "
    "influential token of a row has the full color, a quarter of its influence half of it."
)


def html(inspections: Sequence[Inspection]) -> str:
    """Make the whole page, of one or several models side by side."""
    names = " and ".join(each.name for each in inspections) if len(inspections) < 3 else f"{len(inspections)} models"
    full = full_color(inspections)
    sections = [
        f"<h1>How {escape(names)} read{'s' if len(inspections) == 1 else ''} a text</h1>",
        '<p class="lead">The stronger the color, the more a token surprises the model, given the tokens before it. '
        f'<span class="scale" role="img" aria-label="from 0 to {full:.1f} bits or more"><span>0</span><i></i>'
        f"<span>{full:.1f} bits or more</span></span></p>",
        '<p class="caption">Point at a token, press it, or go through the text with the arrow keys, to see what the '
        "model expected there. A pressed token stays, and the colors show what influenced its prediction.</p>",
        "<noscript><p>The details of single tokens need JavaScript.</p></noscript>",
        f'<div class="models of{min(len(inspections), 3)}">'
        + "\n".join(_model(number, each, full) for number, each in enumerate(inspections))
        + "</div>",
        "<footer>Made by lmzoo inspect; docs/inspect.md explains the numbers.</footer>",
    ]
    data = json.dumps([_data(each) for each in inspections], ensure_ascii=False, allow_nan=False)
    scripts = (
        f'<script type="application/json" id="inspections">{data.replace("<", chr(92) + "u003c")}</script>\n'
        f"<script>{_asset('page.js')}</script>\n"
    )
    return page(f"{names}: a text inspected", sections, css=_asset("page.css"), scripts=scripts, policy=POLICY)


def write_page(inspections: Sequence[Inspection], path: Path) -> None:
    """Write the page to a file. Raises `CheckpointError` if that is not possible."""
    atomic.write_file(path, html(inspections))


def full_color(inspections: Sequence[Inspection]) -> float:
    """Returns the surprise in bits that has the full color, the same for all models."""
    bits = sorted(token.bits for each in inspections for token in each.tokens if token.bits is not None)
    finite = [value for value in bits if math.isfinite(value)]
    return max(1.0, finite[int(LARGE * (len(finite) - 1))]) if finite else 1.0


def _model(number: int, inspection: Inspection, full: float) -> str:
    parts = [
        f'<h2>{escape(inspection.name)}</h2>\n<p class="caption">{_facts(inspection)}</p>',
        _text(inspection, full),
        '<div class="panel card" aria-live="polite" hidden></div>',
        _influence(inspection),
        layer_figures(inspection),
    ]
    body = "\n".join(part for part in parts if part)
    return f'<section class="model" data-model="{number}" aria-label="{escape(inspection.name)}">\n{body}\n</section>'


def _facts(inspection: Inspection) -> str:
    facts = [
        humanize.number(len(inspection.tokens) - 1, "token"),
        f"{inspection.nats:.3f} nats per token",
        f"{inspection.bits_per_byte:.3f} bits per byte",
    ]
    note = "" if inspection.note is None else f" <b>The {escape(inspection.note.partition('the ')[2])}.</b>"
    return f"{', '.join(facts)}; nothing predicts the first token.{note}"


def _text(inspection: Inspection, full: float) -> str:
    """Make the colored text. One token can be focused; the arrow keys go to the others."""
    spans = []
    for place, token in enumerate(inspection.tokens):
        bits = token.bits if token.bits is not None and math.isfinite(token.bits) else 0.0
        strength = round(100 * min(1.0, max(0.0, bits) / full))
        focus = 0 if place == 0 else -1
        text = escape(shown(token.text)) if token.id is not None else "…"
        place_and_color = f'tabindex="{focus}" data-i="{place}" style="--a:{strength}%"'
        spans.append(f'<span role="button" class="token" {place_and_color}>{text}</span>')
    return (
        '<form class="controls" hidden><label class="choose">Color <select name="color">'
        '<option value="surprise">surprise</option></select></label>'
        '<button type="button" name="back" aria-label="previous token">‹</button>'
        '<button type="button" name="on" aria-label="next token">›</button></form>\n'
        f'<div class="text card" role="group" aria-label="the text">{"".join(spans)}</div>'
    )


def _influence(inspection: Inspection) -> str:
    if inspection.influence is None:
        return f'<h3>Influence</h3>\n<p class="caption">{escape(inspection.problem or "")}</p>'
    rows = inspection.influence / inspection.influence.amax(dim=1, keepdim=True).clamp(min=1e-30)
    image = (
        f'<img class="map" data-map="influence" data-label="influence" data-shift="1" alt="influence of each token on '
        f'each prediction" width="{len(rows)}" height="{len(rows)}" src="{data_uri(rows, full=1.0)}">'
    )
    return (
        f'<h3>Influence</h3>\n<p class="caption">{INFLUENCE}</p>\n<figure class="wide">{image}'
        f'<figcaption class="readout">{HINT}</figcaption></figure>'
    )


def _data(inspection: Inspection) -> dict[str, Any]:
    """Returns what the script needs of one model."""
    tokens = [
        {
            "text": named(token.text) if token.id is not None else "…",
            "nats": None if token.nats is None else rounded(token.nats),
            "rank": token.rank,
            "top": [[named(text), rounded(p)] for text, p in token.top],
        }
        for token in inspection.tokens
    ]
    return {"tokens": tokens, "layers": layer_numbers(inspection)}


def _asset(name: str) -> str:
    return resources.files("lmzoo.inspect").joinpath(name).read_text(encoding="utf-8")
