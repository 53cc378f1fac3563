"""Makes the views of single layers on the page of `lmzoo inspect`: attention maps, gates, experts, norms of states."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from lmzoo.inspect.images import data_uri
from lmzoo.inspect.inspection import Inspection, rounded
from lmzoo.inspect.pieces import named
from lmzoo.inspect.recording import NAMES, kind_of

MOST_MAPS = 144  # attention maps of a model; each takes up to 40 kB
ATTENTION = ("attention.weights", "attention.window")
CHOICES = "router.chosen"
HINT = "Point at a field to read it; press it to see its row in the text."
# Kinds that are drawn as a row for each block, in this order, with a title.
STRIPS = {
    "gates.decay": "Decay: how much of the memory is kept",
    "gates.write": "Write gates: how strongly a token is written",
    "gates.output": "Output gates",
    "gates.reset": "Reset gates",
    "chunks.start": "Starts of chunks",
    "state.norm": "Norm of the state",
    "features.rms": "Size of the features (root mean square)",
}
# Beside these, the page leaves out what is no number of a token: three gates of branches, probabilities of all experts.


def layer_figures(inspection: Inspection) -> str:
    """Make all views of the layers of a model; nothing for a model that offers nothing."""
    parts = [_attention(inspection), *(_strip(inspection, kind) for kind in STRIPS), _experts(inspection)]
    return "\n".join(part for part in parts if part)


def layer_numbers(inspection: Inspection) -> list[dict[str, Any]]:
    """Returns the numbers of each token by layer, for the script: `{"name": ..., "values": [...]}`."""
    found = [
        {"name": name.removeprefix("blocks."), "values": rounded(value[0].tolist())}
        for name, value in inspection.recording.items()
        if kind_of(name) in STRIPS
    ]
    experts = [
        {"name": name.removeprefix("blocks."), "values": [" ".join(map(str, row)) for row in value[0].tolist()]}
        for name, value in inspection.recording.items()
        if kind_of(name) == CHOICES
    ]
    return found + experts


def _of_kind(inspection: Inspection, *kinds: str) -> dict[str, Tensor]:
    """Returns the values of these kinds of the only row, by name."""
    return {name: value[0] for name, value in inspection.recording.items() if kind_of(name) in kinds}


def _attention(inspection: Inspection) -> str:
    """Make a folded group of maps for each attention layer, one map for each head."""
    groups, left, room = list[str](), 0, MOST_MAPS
    for name, weights_THS in _of_kind(inspection, *ATTENTION).items():
        heads = weights_THS.shape[1]
        if heads > room:
            left += heads
            continue
        room -= heads
        groups.append(_maps(name, weights_THS))
    if not groups:
        return ""
    more = f" The maps of {left} more heads are left out." if left else ""
    caption = (
        "Row t: what each head reads at token t. Choose a head under “Color”, or press a map, to see it in the text. "
        f"The full color is the largest weight of a map, half of it a quarter of that.{more}"
    )
    return f'<h3>Attention</h3>\n<p class="caption">{escape(caption)}</p>\n' + "\n".join(groups)


def _maps(name: str, weights_THS: Tensor) -> str:
    figures = []
    for head, weights_TS in enumerate(weights_THS.abs().unbind(1), 1):
        label = f"{name.removeprefix('blocks.')}, head {head}"
        size, full = len(weights_TS), float(weights_TS.nan_to_num().amax())
        figures.append(
            f'<figure><figcaption>head {head}</figcaption><img class="map" data-map="{escape(name)}.head.{head}" '
            f'data-label="{escape(label)}" data-shift="0" data-full="{full:.4g}" alt="{escape(label)}" width="{size}" '
            f'height="{size}" src="{data_uri(weights_TS, full=full)}"></figure>'
        )
    summary = f"<summary>{escape(name)}<small>{_meaning(name)}</small></summary>"
    readout = f'<p class="readout caption">{HINT}</p>'
    return f'<details class="card layer">{summary}<div class="maps">{"".join(figures)}</div>{readout}</details>'


def _strip(inspection: Inspection, kind: str) -> str:
    """Make a map with a row for each block and a column for each token, of means over channels and heads."""
    found = _of_kind(inspection, kind)
    if not found:
        return ""
    values_LT = torch.stack(list(found.values())).double()
    finite = values_LT.isfinite()
    own = kind in ("state.norm", "features.rms")  # blocks of very different sizes: each row has its own full color
    if own:
        values_LT = values_LT / values_LT.where(finite, 0.0).amax(dim=1, keepdim=True).clamp(min=1e-30)
    known = values_LT[finite]
    low, full = (0.0, 1.0) if own or not len(known) else (float(known.min()), float(known.max()))
    names = "".join(f"<li>{escape(name.removeprefix('blocks.').removesuffix(f'.{kind}'))}</li>" for name in found)
    scale = (
        "Full color: the largest value of the row."
        if own
        else f"From {low:.3g} (no color) to {full:.3g}; means over channels and heads."
    )
    return (
        f'<h3>{escape(STRIPS[kind])}</h3>\n<p class="caption"><code>{kind}</code>: {_meaning(kind)} A row for each '
        f'block, a column for each token. {scale}</p>\n<div class="strip card"><ol>{names}</ol>'
        f'<img class="strip-map" alt="{escape(STRIPS[kind])}, by block and token" width="{values_LT.shape[1]}" '
        f'height="{len(found)}" src="{data_uri(values_LT - low, full=full - low)}"></div>'
    )


def _experts(inspection: Inspection) -> str:
    """Make a column for each token, which wrap like a text: the token, and under it its experts in each router."""
    found = _of_kind(inspection, CHOICES)
    if not found:
        return ""
    numbers = [int(chosen_TK.max()) + 1 for chosen_TK in found.values()]
    columns = []
    for place, token in enumerate(inspection.tokens[:-1]):
        experts = [chosen_TK[place].tolist() for chosen_TK in found.values()]
        cells = "".join(map(_expert_cell, experts, numbers))
        columns.append(f"<li><b>{escape(named(token.text).strip()[:6])}</b>{cells}</li>")
    names = ", ".join(name.removeprefix("blocks.").removesuffix(f".{CHOICES}") for name in found)
    return (
        f'<h3>Experts</h3>\n<p class="caption"><code>{CHOICES}</code>: {_meaning(CHOICES)} Under each token, from top '
        f"to bottom: block {escape(names)}. The color is that of the first expert.</p>\n"
        f'<ol class="experts card">{"".join(columns)}</ol>'
    )


def _expert_cell(experts: Sequence[int], number: int) -> str:
    hue = round(360 * experts[0] / number)
    return f'<span style="--hue:{hue}">{" ".join(map(str, experts))}</span>'


def _meaning(name: str) -> str:
    meaning = NAMES[kind_of(name)].meaning
    return escape(f"{meaning[0].upper()}{meaning[1:]}.")
