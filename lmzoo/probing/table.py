"""Makes the table of probes for a terminal: a line for each level and length, a column for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmzoo import humanize, terminal
from lmzoo.probing.results import FILE, CellResult, Results

if TYPE_CHECKING:
    from rich.text import Text

SOLVED, CHANCE = "✓", "○"
NEAR_CHANCE = 0.1  # largest share of the way from chance to solved that still counts as chance
LEGEND = (
    f"Accuracy at the length of training and at a greater one. {SOLVED} solved; {CHANCE} at chance: less than a tenth "
    "of the way from chance to solved."
)
HEADINGS = ("probe", "length", "chance", "solved")


def print_results(results: Results, folder: Path) -> None:
    """Print the table, what the marks mean, the cells without an accuracy, and where the results are."""
    console = terminal.results_console()
    for text in blocks(results, results.models, console.width):
        console.print(text)
        console.print()
    console.print(LEGEND, markup=False)
    if note := training_note(results):
        console.print(note, markup=False)
    if any(len(results.of(model, level)) > 1 for model in results.models for level in results.levels):
        console.print("Means over the seeds; n/m: solved with n of m seeds.", markup=False)
    problems = {f"{cell.model} on {cell.probe} {cell.difficulty}": cell for cell in results.cells if cell.problem}
    for name, cell in problems.items():
        console.print(f"{name} {cell.status}: {humanize.line(cell.problem)}", style="red", markup=False)
    console.print(f"results: {folder / FILE}", markup=False, soft_wrap=True)


def training_note(results: Results) -> str:
    """State how long the models were trained; nothing for cells without their settings."""
    found = [train for cell in results.cells if isinstance(train := cell.settings.get("train"), dict)]
    steps, rows = (
        sorted({train[key] for train in found if isinstance(train.get(key), int)}) for key in ("steps", "batch_size")
    )
    if not steps or not rows:
        return ""
    return (
        f"Each model was trained from new weights on each probe, {_span(steps)} steps of {_span(rows)} sequences: with "
        "more steps or another recipe it may solve more."
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = f"{numbers[0]:,}", f"{numbers[-1]:,}"
    return low if low == high else f"{low} to {high}"


def blocks(results: Results, models: Sequence[str], width: int) -> list[Text]:
    """Make as many tables of some of the models each as a narrow terminal needs."""
    return [block(results, some, width) for some in _blocks(results, models, width)]


def block(results: Results, models: Sequence[str], width: int) -> Text:
    """Make the table of some of the models."""
    return terminal.table((*HEADINGS, *models), rows(results, models), width=width, left=["probe"])


def rows(results: Results, models: Sequence[str]) -> list[list[str]]:
    """Return two lines for each level: at the trained and at the tested length."""
    found = []
    for level in results.levels:
        cells = {model: results.of(model, level) for model in models}
        for name, length, chance, solved in (
            (f"{level.probe} {level.difficulty}", level.trained_length, level.chance_trained, level.solved_trained),
            ("", level.tested_length, level.chance_tested, level.solved_tested),
        ):
            trained = length == level.trained_length
            entries = [entry(cells[model], trained, chance, solved) for model in models]
            found.append([name, str(length), f"{chance:.3f}", f"{solved:.3f}", *entries])
    return found


def entry(cells: Sequence[CellResult], trained: bool, chance: float, solved: float) -> str:
    """Return the accuracy, after its mark, so that the figures of a column stand below each other."""
    if not cells:
        return humanize.MISSING
    values = [cell.accuracy_trained if trained else cell.accuracy_tested for cell in cells]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        status = next((cell.status for cell in cells if cell.problem), humanize.MISSING)  # else the file was changed
        return f"{len(values) - len(known)}/{len(values)} {status}" if known else status
    mean, wins = sum(known) / len(known), sum(value >= solved for value in known)
    if wins == len(known):
        mark = SOLVED
    elif wins:
        mark = f"{wins}/{len(known)}"
    else:
        mark = CHANCE if mean < chance + NEAR_CHANCE * (solved - chance) else ""
    return f"{mark} {mean:.3f}".lstrip()


def _blocks(results: Results, models: Sequence[str], width: int) -> list[list[str]]:
    """Divide the models into as many as fit beside each other, so that a narrow terminal cuts no column."""
    found: list[list[str]] = []
    for model in models:
        if found and _fits(results, [*found[-1], model], width):
            found[-1].append(model)
        else:
            found.append([model])
    return found


def _fits(results: Results, models: Sequence[str], width: int) -> bool:
    return max(map(len, block(results, models, terminal.PIPED_COLUMNS).plain.splitlines())) <= width
