"""Makes the tables of the report as HTML. All outside text is escaped.

Each cell knows its heading, which a narrow screen shows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lmzoo import humanize
from lmzoo.compare import findings, table
from lmzoo.compare.figure import N_COLORS
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.tuning import Search, tuned_table

COSTS = ("params", "without embeddings", "FLOPs per token", "state at full context", "training time", "evaluation time")
TEXT_COLUMNS = ("model", "other model", "verdict")


def ranking_table(results: Results, colors: dict[str, int] | None = None) -> str:
    """Make the ranked table, with a swatch of each model's color in the figures if `colors` are given."""
    lines = []
    for row in table.rows(results):
        kind = "best" if row.cells[0] == "1" else row.kind
        mark = ""
        if colors is not None:
            mark = '<i class="swatch none"></i>' if row.kind == "reference" else swatch(colors[row.name])
        if row.kind == "unranked":
            rest = f'<td class="why" colspan="5">{escape(row.cells[2])}: {escape(row.note)}</td>'
        else:
            rest = _cells(table.HEADINGS[2:], row.cells[2:], first="loss")
        lines.append(
            f'<tr class="{kind}"><td class="rank" data-label="rank">{row.cells[0]}</td>'
            f'<th class="text" scope="row">{mark}{escape(row.name)}</th>{rest}</tr>'
        )
    heading = '<th class="rank">#</th>' + _headings(table.HEADINGS[1:])
    body = "\n".join(lines)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>\n{body}\n</tbody></table>"


def pairs_table(results: Results) -> str:
    """Make the table of every two models, which several seeds allow; empty for one seed."""
    rows = [(escape(row[0]), _cells(findings.PAIR_HEADINGS[1:], row[1:])) for row in findings.pair_rows(results)]
    return _table(findings.PAIR_HEADINGS, rows, kind="pairs") if rows else ""


def sensitivity_table(search: Search, colors: dict[str, int]) -> str:
    """Make the table of the loss of each model by a tuned setting; the chosen value is bold."""
    headings, found = tuned_table(search)
    rows = []
    for row in found:
        name = row[0][0]
        cells = "".join(
            f'<td data-label="{escape(value)}">{f"<b>{escape(cell)}</b>" if chosen else escape(cell)}</td>'
            for value, (cell, chosen) in zip(headings[1:], row[1:], strict=True)
        )
        rows.append((swatch(colors[name]) + escape(name), cells))
    return _table(("model", *headings[1:]), rows)


def cost_table(models: Sequence[ModelResult], colors: dict[str, int]) -> str:
    """Make the table of sizes, FLOPs, state and seconds."""
    rows = []
    for model in models:
        cells = (
            humanize.count(model.params),
            humanize.count(model.params_non_embedding),
            humanize.count(model.flops_per_token),
            humanize.size(model.state_bytes),
            humanize.duration(model.seconds),
            humanize.duration(model.eval_seconds),
        )
        rows.append((swatch(colors[model.name]) + escape(model.name), _cells(COSTS, cells)))
    return _table(("model", *COSTS), rows)


def checks_table(models: Sequence[ModelResult], colors: dict[str, int]) -> str:
    """Make the table of the checks that each model passed or failed; empty if none is recorded."""
    rows = []
    for model in models:
        passed = [name for name, held in model.checks.items() if held]
        failed = [name for name, held in model.checks.items() if not held]
        if not model.checks:
            continue
        verdict = f"failed: {', '.join(failed)}; no rank" if failed else f"passed all {len(passed)}"
        cells = f'<td>{escape(verdict)}</td><td class="soft">{escape(", ".join(passed))}</td>'
        rows.append((swatch(colors[model.name]) + escape(model.name), cells))
    return _table(("model", "verdict", "passed"), rows, kind="checks") if rows else ""


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], colors: dict[str, int]) -> str:
    """Make a table of text; a row that begins with the name of a model has its swatch."""
    made = []
    for name, *cells in rows:
        mark = swatch(colors[name]) if name in colors else '<i class="swatch"></i>'
        made.append((mark + escape(name), _cells(headings[1:], cells)))
    return _table(headings, made)


def swatch(color: int) -> str:
    """Make the square with the color of a model; it is dashed where its line is."""
    return f'<i class="swatch fill{color % N_COLORS}{" dashed" if color >= N_COLORS else ""}"></i>'


def _table(headings: Sequence[str], rows: Sequence[tuple[str, str]], *, kind: str = "") -> str:
    """Make a table from rows of (HTML of the first cell, HTML of the others)."""
    lines = "\n".join(f'<tr><th class="text" scope="row">{name}</th>{cells}</tr>' for name, cells in rows)
    start = f'<table class="{kind}">' if kind else "<table>"
    return f"{start}<thead><tr>{_headings(headings)}</tr></thead><tbody>\n{lines}\n</tbody></table>"


def _headings(names: Sequence[str]) -> str:
    return "".join(
        f'<th class="text">{escape(name)}</th>' if name in TEXT_COLUMNS else f"<th>{escape(name)}</th>"
        for name in names
    )


def _cells(headings: Sequence[str], cells: Sequence[str], *, first: str = "") -> str:
    """Make the cells of a row; `first` is a class of the first one."""
    kinds = [f' class="{first}"' if first and not i else "" for i in range(len(cells))]
    return "".join(
        f'<td{kind} data-label="{escape(heading)}">{escape(cell)}</td>'
        for kind, heading, cell in zip(kinds, headings, cells, strict=True)
    )
