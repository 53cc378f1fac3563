"""Makes the page of probes: a heat map of accuracies, levels by models, as one HTML file that opens without a network.

All outside text (names of models, problems) is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lmzoo import humanize
from lmzoo.compare.report import page
from lmzoo.probing.results import CellResult, Results
from lmzoo.probing.table import LEGEND, rows, training_note
from lmzoo.storage import atomic

FILE = "probes.html"
FULL = 65  # per cent: share of the color in a field whose level is solved
CSS = """.heat td { text-align: center; border-left: 1px solid var(--rule); }
.heat thead th + th { text-align: center; }
.heat small { display: block; color: var(--soft); font-weight: 400; }
@media screen and (max-width: 620px) {
  .heat tr { grid-template-columns: minmax(0, 1fr); }
  .heat td { border: 0; padding: 2px 8px; border-radius: 4px; white-space: normal; }
  .heat td::before { color: var(--ink); min-width: 0; overflow-wrap: anywhere; }
}
"""


def html(results: Results) -> str:
    """Make the whole page."""
    models = results.models
    names = list(dict.fromkeys(level.probe for level in results.levels))
    title = f"{humanize.number(len(models), 'model')} on {humanize.number(len(names), 'probe')}"
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    problems = dict.fromkeys(
        f"{cell.model} on {cell.probe} {cell.difficulty} {cell.status}: {cell.problem}"
        for cell in results.cells
        if cell.problem
    )
    several = any(len(results.of(model, level)) > 1 for model in models for level in results.levels)
    seeds = " Means over the seeds; n/m: solved with n of m seeds." if several else ""
    skills = {level.probe: (level.skill, level.paper) for level in results.levels}
    listed = "".join(
        f"<li><b>{escape(name)}</b>: {escape(skill)} ({escape(paper)})</li>" for name, (skill, paper) in skills.items()
    )
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="caption">{escape(LEGEND)}{seeds} The fuller the color, the further from chance to solved. '
        f"{escape(training_note(results))}</p>",
        f'<div class="card scroll">{heat_map(results)}</div>',
        f"<h2>The probes</h2>\n<ul>{listed}</ul>",
        "<h2>Without an accuracy</h2>\n<ul>" + "".join(f"<li>{escape(text)}</li>" for text in problems) + "</ul>"
        if problems
        else "",
        f"<footer>{escape(versions)}; the same figures, and all settings, are in probes.json.</footer>",
    ]
    return page(title, sections, css=CSS)


def heat_map(results: Results) -> str:
    """Make the table: two lines for each level, at the length of training and at a greater one; a column per model."""
    models = results.models
    lines = []
    for number, (_, length, chance, solved, *entries) in enumerate(rows(results, models)):
        level = results.levels[number // 2]
        head = f"{level.probe} {level.difficulty}"
        cells = ""
        for model, entry in zip(models, entries, strict=True):
            found = results.of(model, level)
            share = progress(found, trained=number % 2 == 0, chance=float(chance), solved=float(solved))
            cells += f'<td data-label="{escape(model)}"{_shade(share)}>{escape(entry)}</td>'
        facts = f"{length} tokens, chance {chance}, solved {solved}"
        lines.append(f'<tr><th class="text" scope="row">{escape(head)}<small>{facts}</small></th>{cells}</tr>')
    headings = "".join(f"<th>{escape(model)}</th>" for model in models)
    body = "\n".join(lines)
    return (
        f'<table class="heat"><thead><tr><th class="text">probe</th>{headings}</tr></thead><tbody>\n{body}\n'
        "</tbody></table>"
    )


def _shade(share: float | None) -> str:
    if share is None:
        return ""
    return f' style="background: color-mix(in srgb, var(--s2) {FULL * share:.0f}%, transparent)"'


def progress(cells: Sequence[CellResult], *, trained: bool, chance: float, solved: float) -> float | None:
    """Return the share of the way from chance to solved in [0, 1], of the mean; None if a seed has no accuracy."""
    values = [cell.accuracy_trained if trained else cell.accuracy_tested for cell in cells]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    way = (sum(known) / len(known) - chance) / max(solved - chance, 1e-9)
    return min(max(way, 0.0), 1.0)


def write_report(results: Results, folder: Path) -> Path:
    """Write `folder/probes.html` atomically; returns its path."""
    atomic.write_file(folder / FILE, html(results))
    return folder / FILE
