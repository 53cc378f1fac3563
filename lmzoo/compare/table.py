"""Makes the ranked table, as Markdown for a file and by rich for a terminal.

Counted n-grams are listed among the models, by loss, without a rank: they show the loss without any training. With
several seeds, the models are ordered by rank alone and the n-grams follow them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lmzoo import humanize, terminal
from lmzoo.compare import loss_tables, protocol
from lmzoo.compare.findings import PAIR_HEADINGS, PAIRS, loss, pair_rows, place, seed_notes
from lmzoo.compare.notes import context_notes, entropy_notes, text_seen
from lmzoo.compare.probe_tables import names, probe_note, probe_table, probed, problems
from lmzoo.compare.results import Results, budget_text, same_steps
from lmzoo.compare.sizes import match_notes
from lmzoo.compare.tuning import TUNED, searches, tune_notes, tuned_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SAMPLE_CHARACTERS = 240  # length of each model's sample on a terminal
DROPPED = ("train tok/s", "decode tok/s", "bits/byte", "params")  # the first ones to go in a narrow terminal
HEADINGS = ("#", "model", "val loss (nats)", "bits/byte", "params", "train tok/s", "decode tok/s")


@dataclass(frozen=True)
class Row:
    """A row of the table: its kind, and the cells under `HEADINGS`."""

    kind: Literal["model", "reference", "unranked"]
    name: str
    cells: tuple[str, ...]
    note: str = ""


def rows(results: Results) -> list[Row]:
    """Sort models and n-grams by validation loss, or by rank; models without a rank come last, with the reason."""
    scored: list[tuple[float, str, Row]] = []
    several = len(results.seeds) > 1
    for number, model in enumerate(results.ranked):
        assert model.loss is not None
        cells = (
            place(results, model.name),
            model.name,
            loss(results, model),
            humanize.loss(model.bits_per_byte),
            humanize.count(model.params),
            humanize.count(model.train_tokens_per_s),
            humanize.count(model.decode_tokens_per_s),
        )
        scored.append((number if several else model.loss, model.name, Row("model", model.name, cells)))
    for line in [*results.references, *results.yardsticks]:
        cells = ("", line.name, humanize.loss(line.loss), humanize.loss(line.bits_per_byte), "", "", "")
        score = len(results.models) + line.loss if several else line.loss
        scored.append((score, line.name, Row("reference", line.name, cells)))
    ordered = [row for _, _, row in sorted(scored, key=lambda entry: entry[:2])]
    for model in results.unranked:
        # The loss of a model that failed a check may mean nothing (it may see future tokens), so it is not shown.
        cells = ("", model.name, model.status, "", humanize.count(model.params), "", "")
        ordered.append(Row("unranked", model.name, cells, model.problem))
    return ordered


def markdown(results: Results) -> str:
    """Make the table as Markdown, with a summary line above it and a note on each model without a rank."""
    aligned = "|" + "|".join("---" if heading == "model" else "---:" for heading in HEADINGS) + "|"
    lines = [escaped(summary(results)), "", _pipes(HEADINGS), aligned]
    notes = []
    for row in rows(results):
        cells = [escaped(cell) for cell in row.cells]
        if row.kind == "reference":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        lines.append(_pipes(cells))
        if row.note:
            notes.append(f"- **{escaped(row.name)}** has no rank: {escaped(row.note)}")
    facts = [*match_notes(results), *tune_notes(results), *entropy_notes(results), *context_notes(results)]
    notes += [f"- {escaped(note)}" for note in [*facts, protocol.state_note(results)] if note]
    lines += ["", f"*Italic*: losses without any training. {yardsticks_note(results)}", ""]
    lines += [*([protocol.sentence(results), ""] if results.protocol else []), escaped(copied_text(results))]
    notes += [f"- {escaped(note)}" for note in seed_notes(results)]
    return (
        "\n".join([*lines, *([""] if notes else []), *notes, *_pairs(results), *_tuned(results), *_losses(results)])
        + "\n"
    )


def yardsticks_note(results: Results) -> str:
    """State what the rows are that need no training."""
    return (
        "uniform: every token is equally likely; xz: the validation text alone, compressed by lzma with preset 9; "
        f"n-grams: interpolated Witten-Bell, counted on the {text_seen(results)}, with the context of the models."
    )


def _pairs(results: Results) -> list[str]:
    """Make the table of every two models."""
    pairs = pair_rows(results)
    if not pairs:
        return []
    aligned = "|---|---|---:|---:|---:|---|"
    return [
        "",
        _pipes(PAIR_HEADINGS),
        aligned,
        *(_pipes([escaped(cell) for cell in pair]) for pair in pairs),
        "",
        PAIRS,
    ]


def _tuned(results: Results) -> list[str]:
    """Make a table for each tuned setting."""
    lines: list[str] = []
    for search in searches(results.tuning):
        headings, rows = tuned_table(search)
        aligned = "|---|" + "---:|" * (len(headings) - 1)
        cells = ([f"**{escaped(cell)}**" if best else escaped(cell) for cell, best in row] for row in rows)
        lines += ["", _pipes([escaped(heading) for heading in headings]), aligned, *map(_pipes, cells)]
    return [*lines, "", TUNED] if lines else []


def _losses(results: Results) -> list[str]:
    """Make the tables of the loss by position and by class, and of probes."""
    lines: list[str] = []
    tables = [
        (loss_tables.position_table(results), loss_tables.positions_note(results)),
        (loss_tables.class_table(results), loss_tables.CLASSES),
    ]
    if results.probes:
        tables.append((probe_table(results), probe_note(results)))
    for table, note in tables:
        if table is not None:
            headings, rows = table
            aligned = "|---|" + "---:|" * (len(headings) - 1)
            cells = (_pipes([escaped(cell) for cell in row]) for row in rows)
            lines += ["", note, "", _pipes([escaped(heading) for heading in headings]), aligned, *cells]
    return lines + [f"- {escaped(text)}" for text in problems(results)]


def rich_table(results: Results, width: int = terminal.PIPED_COLUMNS) -> Text:
    """Make the table for a terminal: the best model is bold green, n-grams are dim, models without a rank are red."""
    lines = rows(results)
    kinds = {"model": "", "reference": "dim italic", "unranked": "red"}
    styles = ["bold green" if row.cells[0] == "1" else kinds[row.kind] for row in lines]
    cells = [row.cells for row in lines]
    return terminal.table(HEADINGS, cells, width=width, left=["model"], wrapped="model", drop=DROPPED, styles=styles)


def print_results(results: Results, folder: Path) -> None:
    """Print the ranked table, the reasons of models without a rank, a short sample of each model, the report's path."""
    console = terminal.results_console()
    console.print(summary(results), markup=False)
    console.print(rich_table(results, console.width))
    for row in rows(results):
        if row.note:
            console.print(f"{row.name} has no rank: {row.note}", style="red", markup=False)
    facts = [*match_notes(results), *tune_notes(results), *entropy_notes(results), *context_notes(results)]
    for note in [*seed_notes(results), *facts]:
        console.print(note, markup=False)
    for model in results.ranked:
        text = " ".join((results.prompt + model.sample).split())
        console.print(f"\n{model.name}:", style="bold", markup=False)
        console.print(humanize.plain(text[:SAMPLE_CHARACTERS]), markup=False)
    _print_probes(results, console)
    console.print(f"\n{protocol.sentence(results)}", markup=False)
    if note := protocol.state_note(results):
        console.print(note, markup=False)
    console.print(copied_text(results), markup=False)
    console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)


def _print_probes(results: Results, console: Console) -> None:
    """Print the table of probes, a column for each model."""
    from lmzoo.probing.table import blocks

    found = probed(results)
    if found is None:
        return
    for text in blocks(found, names(results, found), console.width):
        console.print(text)
    console.print(probe_note(results), markup=False)
    for line in problems(results):
        console.print(line, style="red", markup=False)


def summary(results: Results) -> str:
    """Summarize corpus, tokenizer, budget and seed in one line."""
    budget = results.budget
    steps = f"{budget['steps']:,} steps of" if same_steps(results) else f"{budget_text(results)} in steps of"
    return (
        f"{'' if results.complete else 'Not finished. '}{results.corpus['name']}, tokenizer "
        f"{results.tokenizer['spec']}: {steps} {budget['batch_size']} x {budget['context_length']} tokens for every "
        "model, "
        f"{'documents isolated, ' if budget.get('documents') == 'isolated' else ''}{seeds(results)}"
    )


def seeds(results: Results) -> str:
    """State the seed or the seeds."""
    if len(results.seeds) < 2:
        return f"seed {results.seed}"
    return f"seeds {results.seeds[0]} to {results.seeds[-1]}"


def copied_text(results: Results) -> str:
    """State which documents were removed from the validation split, and how much of it is text of the training split.

    A text without several documents, or a comparison older than the search for near-duplicates, has no first part.
    """
    removed = results.corpus.get("near_duplicates")
    sentences = [*([removed["text"]] if removed else []), results.corpus["overlap"]["text"]]
    return " ".join(sentences)


def _pipes(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Escape what Markdown, HTML or a terminal would obey: names and messages may come from outside."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", humanize.line(" ".join(text.split())))
