"""States the findings of a comparison with several seeds, in words and as a table of pairs of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmzoo import humanize
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.statistics import ALPHA, CONFIDENCE, MOST_SEEDS, POWER, Pair

PERCENT = f"{100 * CONFIDENCE:g} %"
PAIR_HEADINGS = ("model", "other model", "difference", f"{PERCENT} interval", "p (Holm)", "verdict")
PAIRS = (
    "Difference: loss of the model minus loss of the other one, over the same seeds, with the "
    f"{PERCENT} interval of the paired t-test, which is not corrected for the number of pairs. Two models are told "
    f"apart if p, corrected for the number of pairs by Holm's method, is below {ALPHA:g}, and the difference exceeds "
    "the noise of the two: the standard deviation of a loss over seeds, from the mean of their variances. The number "
    f"of more seeds is what a difference of this size needs to be found with a probability of {POWER:g}; a difference "
    "below the noise is no finding with any number of seeds. Adding seeds until a difference is found finds more of "
    "them by chance."
)


def place(results: Results, name: str) -> str:
    """Return the rank of a model: "2", or "2–4" if it is not certain; empty as long as it has none."""
    low, high = results.places.get(name, ("", ""))
    return str(low) if low == high else f"{low}–{high}"


def loss(results: Results, model: ModelResult) -> str:
    """Return the loss of a ranked model; with several seeds, the mean over them and the half width of its interval."""
    mean = results.means.get(model.name)
    if mean is None:
        return humanize.loss(model.loss)
    return f"{humanize.loss(mean.mean)} ± {humanize.loss((mean.high - mean.low) / 2)}"


def first_places(results: Results) -> str:
    """State which models of a comparison with several seeds have the lowest loss."""
    statistics = results.statistics
    if statistics is None:
        return "Fewer than two seeds of every model are done, so no model has a rank yet."
    leading = [model for model in results.ranked if results.places[model.name][0] == 1]
    interval = f"{PERCENT} interval of {statistics.seeds} seeds"
    if len(leading) > 1:
        text = f"{listed([model.name for model in leading])} cannot be told apart with {statistics.seeds} seeds."
        if len(leading) == len(results.ranked):
            return text
        return f"{text} Every other model certainly has a higher loss than one of them."
    name, mean = leading[0].name, statistics.means[leading[0].name]
    figures = f"{mean.mean:.3f} nats per token ({interval}: {mean.low:.3f} to {mean.high:.3f})"
    if len(results.ranked) == 1:
        return f"{name} has a validation loss of {figures}."
    return f"{name} has the lowest validation loss, {figures}, and is told apart from every other ranked model."


def seed_notes(results: Results) -> list[str]:
    """State the noise, and which models cannot be told apart from each other, each pair once."""
    statistics = results.statistics
    if statistics is None:
        return []
    found = [
        f"A changed seed alone moves the loss of a model by {statistics.noise:.2g} nats (standard deviation over "
        f"{statistics.seeds} seeds, over all models). A difference of two models is a finding only if it exceeds the "
        "noise of these two. A rank such as 1–3 is not certain; models with the same rank are in alphabetical order."
    ]
    said: set[str] = set()
    for model in results.ranked:
        said.add(model.name)
        if equals := [name for name in statistics.equals(model.name) if name not in said]:
            found.append(f"{model.name} cannot be told apart from {listed(equals)}.")
    return found


def pair_rows(results: Results) -> list[tuple[str, ...]]:
    """Return the cells under `PAIR_HEADINGS` of every two ranked models, in the order of the table."""
    if results.statistics is None:
        return []
    order = {model.name: number for number, model in enumerate(results.ranked)}
    pairs = [_ordered(pair, order) for pair in results.statistics.pairs]
    return [
        (
            pair.first,
            pair.second,
            f"{pair.difference:+.4f}",
            f"{pair.low:+.4f} to {pair.high:+.4f}",
            "< 0.001" if pair.p_corrected < 0.001 else f"{pair.p_corrected:.3f}",
            _verdict(pair),
        )
        for pair in sorted(pairs, key=lambda pair: (order[pair.first], order[pair.second]))
    ]


def listed(names: Sequence[str]) -> str:
    """Join names by commas and a last "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ordered(pair: Pair, order: dict[str, int]) -> Pair:
    """Return the pair with the model first that comes first in `order`."""
    if order[pair.first] < order[pair.second]:
        return pair
    return replace(
        pair, first=pair.second, second=pair.first, difference=-pair.difference, low=-pair.high, high=-pair.low
    )


def _verdict(pair: Pair) -> str:
    if pair.told_apart:
        return f"{pair.first if pair.difference < 0 else pair.second} is lower"
    if abs(pair.difference) <= pair.noise:
        return "cannot be told apart (below the noise)"
    if pair.more_seeds is None:
        return f"cannot be told apart (more than {MOST_SEEDS:,} seeds)"
    return f"cannot be told apart (about {humanize.number(pair.more_seeds, 'more seed')})"
