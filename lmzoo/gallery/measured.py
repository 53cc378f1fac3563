"""Shows the measured results of a family, from its results.json: figures, how they were made, and all families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lmzoo import humanize

WIDTH, HEIGHT, MARGIN = 460, 58, 14  # pixels, few enough for a phone
FIGURES = {  # by name in results.json: words, and how a number is written
    "bits_per_byte": ("bits per byte", "{:.3f}"),
    "loss": ("validation loss", "{:.3f} nats per token"),
    "params": ("parameters", "{:,}"),
    "flops_per_token": ("FLOPs per token", "{:,.0f}"),
    "state_bytes": ("decoding state", "{:,} bytes at the training length"),
}
SPEEDS = {"train_tokens_per_s": "training", "decode_tokens_per_s": "decoding"}
TICKS = (
    " Each tick is a family. Compare only with families that were measured with as many seeds; the overview of the "
    "gallery shows which they are."
)
NONE = "Not measured yet: <code>scripts/measure_zoo</code> writes the results of a family."


def number(results: Mapping[str, Any], name: str) -> float | None:
    """Returns a figure of results.json, None if it has none; the file of a user's registry may hold anything.

    Speeds are in a table of their own, because they are measured apart, on a quiet machine.
    """
    value = results.get(name, table(results, "speeds").get(name))
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def table(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a table in results.json; empty if it has none."""
    value = results.get(name)
    return value if isinstance(value, Mapping) else {}


def seeds(results: Mapping[str, Any]) -> int:
    """Returns with how many seeds the results were measured; one if they do not say."""
    return int(number(table(results, "budget"), "seeds") or 1)


def figures(results: Mapping[str, Any]) -> dict[str, str]:
    """Returns the figures of results.json in words, by what they are; figures that it does not have are left out."""
    found = {
        words: form.format(value)
        for name, (words, form) in FIGURES.items()
        if (value := number(results, name)) is not None
    }
    ends = results.get("bits_per_byte_interval")
    interval = [end for end in ends if isinstance(end, float)] if isinstance(ends, list) else []
    if "bits per byte" in found and len(interval) == 2:
        found["bits per byte"] += f" (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
    for name, words in SPEEDS.items():
        if speed := number(results, name):
            found[words] = f"{humanize.count(speed)} tokens per second"
    return found


def made(results: Mapping[str, Any]) -> str:
    """Returns in a sentence how the results were made."""
    budget, versions = table(results, "budget"), table(results, "versions")
    tuned = table(results, "learning_rate")
    rate = number(tuned, "chosen") if tuned else number(results, "learning_rate")
    sizes = [number(budget, name) or 0 for name in ("tokens", "steps", "batch_size", "context_length")]
    n_seeds = seeds(results)
    words = [
        f"The preset {results.get('preset', '?')}, {sizes[0]:,} tokens of {table(results, 'corpus').get('name', '?')}",
        "{1:,} steps of {2} x {3} tokens".format(*sizes),
        str(budget.get("optimizer", "")),
        "" if rate is None else f"learning rate {rate:g}",
        str(results.get("precision") or ""),  # files before it was recorded have none
        "one seed, which cannot tell neighbors apart" if n_seeds == 1 else f"{n_seeds} seeds",
        str(table(results, "hardware").get("device", "")),
        f"lmzoo {versions.get('lmzoo', '?')}, torch {versions.get('torch', '?')}",
        str(results.get("date", "")),
    ]
    return ", ".join(humanize.line(word) for word in words if word) + "."


def results_html(results: Mapping[str, Any], all_bits: Sequence[float]) -> str:
    """Returns the section of the results; `all_bits` are the bits per byte of all families, drawn beside its own."""
    if not figures(results):  # empty, or the checks alone
        return f"<p>{NONE}</p>"
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in figures(results).items()
    )
    problem = f"<p>{escape(str(results['problem']))}</p>" if results.get("problem") else ""
    bits = number(results, "bits_per_byte")
    strip = strip_svg(bits, all_bits) if bits is not None and len(all_bits) > 1 else ""
    caption = escape(made(results) + (TICKS if strip else ""))
    return f'{problem}<table class="figures">{rows}</table>{strip}<p class="caption">{caption}</p>'


def strip_svg(own: float, others: Sequence[float]) -> str:
    """Returns a line with a tick for the bits per byte of each family, and a mark at its own."""
    low, high = min(others), max(others)
    scale = (WIDTH - 2 * MARGIN) / max(high - low, 1e-9)

    def place(bits: float) -> float:
        return MARGIN + (bits - low) * scale

    ticks = "".join(f'<path class="tick" d="M{place(bits):.4g} 26v14"/>' for bits in others)
    x = place(own)
    anchor = "start" if x < WIDTH / 4 else "end" if x > 3 * WIDTH / 4 else "middle"
    return (
        f'<svg class="strip" role="img" aria-label="bits per byte of all families, from {low:.3f} to {high:.3f}; '
        f'here {own:.3f}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{ticks}'
        f'<path class="own" d="M{x:.4g} 20v26"/><text class="value" x="{x:.4g}" y="14" text-anchor="{anchor}">'
        f'{own:.3f} bits per byte</text><text x="{MARGIN}" y="56">{low:.3f}</text>'
        f'<text x="{WIDTH - MARGIN}" y="56" text-anchor="end">{high:.3f}</text></svg>'
    )
