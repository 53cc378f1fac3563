"""Prints the list of recipes, and the verdicts of one."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from lmzoo import humanize, terminal
from lmzoo.reproducing.recipe import Recipe
from lmzoo.reproducing.verdicts import FILE, Reproduction, Verdict

if TYPE_CHECKING:
    from rich.text import Text

HEADINGS = ("claim", "value", "seeds", "expected", "verdict")
LEGEND = (
    "Accuracies: the best one over learning rates and seeds; 'seeds' are the lowest and the highest at the learning "
    "rate with the best mean. Differences of losses, in nats per token: the mean over the seeds."
)
_INDENT = "  "


def list_text(recipes: list[Recipe]) -> str:
    """Returns the recipes as paragraphs: name, paper, claim, size and time."""
    return "\n\n".join(_paragraph(recipe) for recipe in recipes)


def _paragraph(recipe: Recipe) -> str:
    lines = (
        recipe.claim,
        f"Paper: {recipe.paper}",
        f"Size: {recipe.size}",
        f"Time: about {recipe.minutes} minutes on two CPU cores",
    )
    width = terminal.reading_columns()
    filled = (textwrap.fill(line, width, initial_indent=_INDENT, subsequent_indent=2 * _INDENT) for line in lines)
    return "\n".join([recipe.name, *filled])


def print_verdicts(found: Reproduction, folder: Path) -> None:
    """Print the table of verdicts, what its figures are, and where the results are."""
    console = terminal.results_console()
    console.print(table(found, console.width))
    console.print(f"\n{LEGEND}", markup=False)
    inside = sum(verdict.inside for verdict in found.verdicts)
    console.print(f"{found.recipe}: {inside} of {len(found.verdicts)} figures inside their bands", markup=False)
    console.print(f"results: {folder / FILE}", markup=False, soft_wrap=True)


def table(found: Reproduction, width: int) -> Text:
    """Make the table: a line for each claim."""
    rows = [
        (
            verdict.text,
            humanize.loss(verdict.value),
            seeds(verdict),
            expected(verdict),
            "inside" if verdict.inside else "outside",
        )
        for verdict in found.verdicts
    ]
    styles = ["" if verdict.inside else "red" for verdict in found.verdicts]
    return terminal.table(
        HEADINGS,
        rows,
        width=width,
        left=["claim", "expected", "verdict"],
        wrapped="claim",
        drop=["seeds"],
        styles=styles,
    )


def seeds(verdict: Verdict) -> str:
    """Returns the lowest and the highest figure of the seeds."""
    if not verdict.seeds:
        return humanize.MISSING
    low, high = (f"{value:.3f}" for value in (min(verdict.seeds), max(verdict.seeds)))
    return low if len(verdict.seeds) == 1 else f"{low} to {high}"


def expected(verdict: Verdict) -> str:
    """Returns the band in words."""
    low, high = (None if bound is None else f"{bound:g}" for bound in (verdict.low, verdict.high))
    if low is None or high is None:
        return f"at most {high}" if low is None else f"at least {low}"
    return f"{low} to {high}"
