"""Tables of the loss of each model by position in the window, and by class of token.

Both are headings and rows of text, as Markdown and other forms need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo import humanize
from lmzoo.compare import protocol
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.token_classes import MEANINGS

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

CLASSES = (
    "Mean loss by class of the token to predict. The share is of all targets; a target may be in several classes. "
    + "; ".join(f"**{name}**: {meaning}" for name, meaning in MEANINGS.items())
    + "."
)


def position_table(results: Results) -> Table | None:
    """Return the loss by position, a row for each ranked model; None if it was not measured.

    Positions that a model was not measured at, because it cannot look so far or the text is too short, have no figure.
    """
    models = [model for model in results.ranked if model.by_position]
    ranges = sorted({(part["first"], part["last"]) for model in models for part in model.by_position})
    if not ranges:
        return None
    rows: list[tuple[str, ...]] = []
    for model in models:
        found = {(part["first"], part["last"]): part["loss"] for part in model.by_position}
        rows.append((model.name, *(humanize.loss(found.get(place)) for place in ranges)))
    return ("model", *(positions_range(*place) for place in ranges)), rows


def positions_note(results: Results) -> str:
    """State what the table by position shows."""
    trained = results.budget["context_length"]
    longest = max((part["last"] for model in results.ranked for part in model.by_position), default=0)
    text = "Mean loss by the number of tokens before the target, in its window."
    if protocol.is_carried(results):
        text = "Mean loss by the number of tokens before the target, in windows whose context is reset."
    if longest <= trained:
        return text
    several = " of the first seed" if len(results.seeds) > 1 else ""
    return (
        f"{text} Above {trained:,}, the training length: losses{several} in windows of {longest:,} tokens, for models "
        "that can look further back than they were trained to."
    )


def class_table(results: Results) -> Table | None:
    """Return the loss by class, a row for each ranked model, and the share of each class; None if not measured."""
    models = [model for model in results.ranked if model.by_class]
    if not models:
        return None
    targets = results.protocol["targets"]
    parts = models[0].by_class
    shares = ("share", "100 %", *(f"{100 * part['tokens'] / targets:.1f} %" for part in parts))
    rows = [(model.name, humanize.loss(model.loss), *_losses(model, parts)) for model in models]
    return ("model", "all", *(part["name"] for part in parts)), [*rows, shares]


def _losses(model: ModelResult, parts: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {part["name"]: part["loss"] for part in model.by_class}
    return [humanize.loss(found.get(part["name"])) for part in parts]


def positions_range(first: int, last: int) -> str:
    """Return a range of positions as text."""
    return f"{last:,}" if first == last else f"{first:,}–{last:,}"
