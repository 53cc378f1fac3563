"""Makes the report: one self-contained HTML file for phones, print, and light or dark screens.

It is made from `Results` alone. All outside text (names, samples, error messages) is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources

from lmzoo import humanize
from lmzoo.compare import findings, table
from lmzoo.compare.chart import LINE_HEIGHT, N_COLORS, Line, loss_chart
from lmzoo.compare.notes import headline, notes
from lmzoo.compare.results import ModelResult, Results, budget_text, same_steps
from lmzoo.compare.tune import TUNED, tuned_table


def html(results: Results) -> str:
    """Make the whole page."""
    ordered = [*results.ranked, *results.unranked]
    colors = {model.name: number for number, model in enumerate(ordered)}
    who = " and ".join(model.name for model in ordered) if len(ordered) <= 2 else f"{len(ordered)} language models"
    title = f"{who} on {results.corpus['name']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(headline(results))}</p>',
        _facts(results),
        _ranking(results, colors),
        _differences(results),
        _tuned(results, colors),
        _curves(results, colors),
        _speed(results, colors),
        _costs(ordered, colors),
        _samples(results, colors),
        _made(results),
        '<h2>What this does and does not show</h2>\n<ul class="soft">'
        + "".join(f"<li>{escape(note)}</li>" for note in notes(results))
        + "</ul>",
        f"<footer>Made by lmzoo {escape(results.versions['lmzoo'])}; the same figures are in results.json.</footer>",
    ]
    css = resources.files("lmzoo.compare").joinpath("report.css").read_text(encoding="utf-8") + _color_rules()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _facts(results: Results) -> str:
    budget, corpus, tokenizer = results.budget, results.corpus, results.tokenizer
    epochs = budget["tokens"] / max(corpus["train_tokens"], 1)
    facts = [
        ("Corpus", corpus["name"], f"{humanize.count(corpus['train_tokens'])} tokens to train on"),
        _evaluated(results),
        ("Tokenizer", tokenizer["spec"], f"{tokenizer['vocab_size']:,} tokens"),
        (
            "Budget for each model",
            budget_text(results),
            f"{'' if same_steps(results) else 'up to '}{epochs:.2g} times the training text",
        ),
        (
            "Training",
            f"{'' if same_steps(results) else 'up to '}{budget['steps']:,} steps",
            f"of {budget['batch_size']} × {budget['context_length']} tokens",
        ),
        _seeds(results),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}<small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<dl class="facts card">{cells}</dl>'


def _evaluated(results: Results) -> tuple[str, str, str]:
    if results.tuning:
        return "Evaluated on", f"{results.tuning['report']['tokens']:,} tokens", "a half of the validation split"
    return "Evaluated on", f"{results.corpus['val_tokens']:,} tokens", "the whole validation split"


def _seeds(results: Results) -> tuple[str, str, str]:
    if len(results.seeds) < 2:
        return "Seed", str(results.seed), "same text, same order for all"
    return "Seeds", f"{results.seeds[0]} to {results.seeds[-1]}", "for each: same text, same order for all"


def _ranking(results: Results, colors: dict[str, int]) -> str:
    interval = ""
    if results.statistics is not None:
        interval = (
            f" Means over {results.statistics.seeds} seeds with the {findings.PERCENT} interval. A rank such as 1–3 is "
            "not certain; equal ranks are in alphabetical order."
        )
    return (
        f'<h2>Ranking</h2>\n<p class="caption">By loss on the validation split: lower is better.{interval} In italics, '
        f"{table.NGRAMS}: the loss that is reached without any training.</p>\n"
        f'<div class="card scroll">{ranking_table(results, colors)}</div>\n'
        f'<p class="caption">{escape(table.overlap(results))}</p>'
    )


def _differences(results: Results) -> str:
    """Make the table of every two models, which several seeds allow."""
    rows = findings.pair_rows(results)
    if not rows:
        return ""
    head = "".join(
        f'<th class="text">{escape(name)}</th>' if name in ("model", "other model", "verdict") else f"<th>{name}</th>"
        for name in findings.PAIR_HEADINGS
    )
    lines = "\n".join(
        f'<tr><th class="text" scope="row">{escape(row[0])}</th>{_cells(findings.PAIR_HEADINGS[1:], row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<h2>Differences</h2>\n<p class="caption">{escape(findings.PAIRS)}</p>\n'
        f'<div class="card scroll"><table class="pairs"><thead><tr>{head}</tr></thead><tbody>\n{lines}\n'
        "</tbody></table></div>"
    )


def _tuned(results: Results, colors: dict[str, int]) -> str:
    """Make the table of the loss of each model by the tuned setting."""
    if not results.tuning or not results.tuning["models"]:
        return ""
    headings, rows = tuned_table(results)
    head = f'<th class="text">{escape(headings[0])}</th>' + "".join(f"<th>{name}</th>" for name in headings[1:])
    lines = []
    for row in rows:
        cells = "".join(
            f'<td data-label="{escape(value)}">{f"<b>{escape(cell)}</b>" if chosen else escape(cell)}</td>'
            for value, (cell, chosen) in zip(headings[1:], row[1:], strict=True)
        )
        name = row[0][0]
        lines.append(f'<tr><th class="text" scope="row">{_swatch(colors[name])}{escape(name)}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<h2>Sensitivity to the {escape(headings[0])}</h2>\n<p class="caption">{escape(TUNED)}</p>\n'
        f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def ranking_table(results: Results, colors: dict[str, int] | None = None) -> str:
    """Make the ranked table, with a swatch of each model's color in the chart if `colors` are given."""
    heading = '<th class="rank">#</th><th class="text">model</th>' + "".join(
        f"<th>{escape(name)}</th>" for name in table.HEADINGS[2:]
    )
    lines = []
    for row in table.rows(results):
        kind = "best" if row.cells[0] == "1" else row.kind
        swatch = ""
        if colors is not None:
            swatch = '<i class="swatch none"></i>' if row.kind == "reference" else _swatch(colors[row.name])
        if row.kind == "unranked":
            rest = f'<td class="why" colspan="5">{escape(row.cells[2])}: {escape(row.note)}</td>'
        else:
            rest = _cells(table.HEADINGS[2:], row.cells[2:], first="loss")
        lines.append(
            f'<tr class="{kind}"><td class="rank">{row.cells[0]}</td>'
            f'<th class="text" scope="row">{swatch}{escape(row.name)}</th>{rest}</tr>'
        )
    body = "\n".join(lines)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cells(headings: Sequence[str], cells: Sequence[str], *, first: str = "") -> str:
    """Make the cells of a row; each knows its heading, which a narrow screen shows beside it. `first` is a class."""
    kinds = [f' class="{first}"' if first and not i else "" for i in range(len(cells))]
    return "".join(
        f'<td{kind} data-label="{escape(heading)}">{escape(cell)}</td>'
        for kind, heading, cell in zip(kinds, headings, cells, strict=True)
    )


def _curves(results: Results, colors: dict[str, int]) -> str:
    models = [model for model in [*results.ranked, *results.unranked] if model.curve and model.status != "failed"]
    if not models:
        return ""
    lines = [Line(model.name, colors[model.name], model.curve, model.status == "diverged") for model in models]
    references = [(line.name, line.loss) for line in results.references]
    height = max(430, 80 + LINE_HEIGHT * (len(lines) + len(references)))
    wide = loss_chart(lines, references, width=850, height=height)
    narrow = loss_chart(lines, references, width=366, height=max(380, height - 50))
    return (
        '<h2>Loss while training</h2>\n<p class="caption">Validation loss in nats per token, over the tokens seen. '
        "Dashed: counted n-grams. ✕: diverged. The first steps, where every loss falls fast, are cut off.</p>\n"
        '<div class="card chart">'
        + wide.replace("<svg ", '<svg class="wide" ', 1)
        + narrow.replace("<svg ", '<svg class="narrow" ', 1)
        + "</div>"
    )


def _speed(results: Results, colors: dict[str, int]) -> str:
    models = results.ranked
    if not models:
        return ""
    training = _bars("Training, tokens per second", models, colors, lambda model: model.train_tokens_per_s)
    decoding = _bars("Decoding, tokens per second", models, colors, lambda model: model.decode_tokens_per_s)
    return (
        f'<h2>Speed</h2>\n<p class="caption">On {escape(_hardware(results))}. Decoding: one row, greedy, '
        f"{results.decode_tokens} tokens within the context, median of several runs. The axes are logarithmic: from "
        "one grid line to the next, the speed is ten times as high.</p>\n"
        f'<div class="card bars">{training}{decoding}</div>'
    )


def _bars(
    title: str, models: Iterable[ModelResult], colors: dict[str, int], of: Callable[[ModelResult], float | None]
) -> str:
    """Draw a dot for each model on a logarithmic axis: on a linear one, the slowest would all be at zero."""
    found = sorted(((model.name, of(model) or 0.0) for model in models), key=lambda entry: -entry[1])
    low, high = decades([value for _, value in found])

    def place(value: float) -> str:
        return f"{100 * (math.log10(value) - low) / (high - low):.1f}%"

    grid = "".join(f'<s style="left:{place(10.0**power)}"></s>' for power in range(low, high + 1))
    bars = "".join(
        f'<div class="bar"><span title="{escape(name)}">{escape(name)}</span><div class="track">{grid}'
        + (f'<i class="fill{colors[name] % N_COLORS}" style="left:{place(value)}"></i>' if value else "")
        + f"</div><b>{humanize.count(value or None)}</b></div>"
        for name, value in found
    )
    ends = "".join(
        f'<small style="left:{place(10.0**power)}">{humanize.count(10.0**power, digits=1)}</small>'
        for power in range(low, high + 1)
    )
    axis = f'<div class="bar axis"><span></span><div class="track">{ends}</div><b></b></div>'
    return f"<div><h3>{escape(title)}</h3>{bars}{axis}</div>"


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Returns the powers of ten that enclose the positive `values`; they differ by at least one."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low = math.floor(min(logs))
    return low, max(low + 1, math.ceil(max(logs)))


def _costs(models: list[ModelResult], colors: dict[str, int]) -> str:
    heads = (
        "params",
        "without embeddings",
        "FLOPs per token",
        "state at full context",
        "training time",
        "evaluation time",
    )
    lines = "\n".join(
        f'<tr><th class="text" scope="row">{_swatch(colors[model.name])}{escape(model.name)}</th>'
        + _cells(heads, _cost(model))
        + "</tr>"
        for model in models
    )
    return (
        '<h2>What each model costs</h2>\n<p class="caption">FLOPs of the forward pass, two per multiply-add; the state '
        "is the memory of one sequence while decoding.</p>\n"
        '<div class="card scroll"><table><thead><tr><th class="text">model</th>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>\n{lines}\n</tbody></table></div>"
    )


def _cost(model: ModelResult) -> list[str]:
    return [
        humanize.count(model.params),
        humanize.count(model.params_non_embedding),
        humanize.count(model.flops_per_token),
        humanize.size(model.state_bytes),
        humanize.duration(model.seconds),
        humanize.duration(model.eval_seconds),
    ]


def _samples(results: Results, colors: dict[str, int]) -> str:
    figures = "\n".join(
        f'<figure class="card"><figcaption>{_swatch(colors[model.name])}{escape(model.name)}</figcaption>'
        f'<pre><span class="prompt">{escape(results.prompt)}</span>{escape(model.sample)}</pre></figure>'
        for model in [*results.ranked, *results.unranked]
        if model.sample
    )
    if not figures:
        return ""
    return (
        '<h2>A sample from each model</h2>\n<p class="caption">The same prompt (grey), temperature 0.8, the first '
        f'sample, not selected.</p>\n<div class="samples">{figures}</div>'
    )


def _made(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    facts = [
        ("Command", results.command),
        ("Versions", versions),
        ("Hardware", _hardware(results)),
        ("Corpus SHA-256", results.corpus["sha256"]),
        ("Corpus built from", results.corpus["origin"]),
        ("Tokenizer SHA-256", results.tokenizer["sha256"]),
    ]
    items = "".join(f"<li>{name}: <code>{escape(str(value))}</code></li>" for name, value in facts if value)
    return f"<h2>How it was made</h2>\n<ul>{items}</ul>"


def _hardware(results: Results) -> str:
    threads = results.hardware["threads"]
    return f"{results.hardware['device']}, {threads} thread{'s' if threads != 1 else ''}"


def _swatch(color: int) -> str:
    return f'<i class="swatch fill{color % N_COLORS}"></i>'


def _color_rules() -> str:
    return "".join(
        f"polyline.s{i} {{ stroke: var(--s{i}); }} circle.s{i}, text.s{i} {{ fill: var(--s{i}); }} "
        f".fill{i} {{ background: var(--s{i}); }}\n"
        for i in range(N_COLORS)
    )
