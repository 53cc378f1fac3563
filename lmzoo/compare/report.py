"""Makes the report: one self-contained HTML file for phones, print, and light or dark screens.

It is made from `Results`, and from the logs of the runs if they are there. All outside text (names, samples, error
messages) is escaped, and the page forbids itself every request: figures are drawn by the copy of Vega-Lite inside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources

from lmzoo import humanize
from lmzoo.compare import findings, protocol, table
from lmzoo.compare import report_tables as tables
from lmzoo.compare.activations import Activations
from lmzoo.compare.conclusions import conclusions
from lmzoo.compare.decode_speed import REPEATS
from lmzoo.compare.figure import N_COLORS, Figure
from lmzoo.compare.figures import figures
from lmzoo.compare.figures_of_tuning import sensitivity_name
from lmzoo.compare.notes import headline, notes
from lmzoo.compare.report_charts import activations, chart, classes, positions, probes
from lmzoo.compare.results import Results, budget_text, model_colors, same_steps
from lmzoo.compare.tuning import TUNED, begun, halved, setting_title
from lmzoo.errors import InputError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
MOST_PAIRS = 15  # a longer table of pairs is folded


def html(results: Results, logged: Activations | None = None) -> str:
    """Make the whole page. `logged` is what `read_activations` found in the runs."""
    ordered = [*results.ranked, *results.unranked]
    colors = model_colors(results)
    drawn = {figure.name: figure for figure in figures(results, logged)}
    who = " and ".join(model.name for model in ordered) if len(ordered) <= 2 else f"{len(ordered)} language models"
    title = f"{who} on {results.corpus['name']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(headline(results))}</p>',
        _facts(results),
        _ranking(results, colors, drawn),
        _conclusions(results),
        _differences(results),
        _curves(results, colors, drawn),
        _sensitivity(results, colors, drawn),
        positions(results, colors, drawn),
        classes(results, colors, drawn),
        _costs(results, colors, drawn),
        probes(results, colors, drawn),
        activations(results, colors, drawn),
        _samples(results, colors),
        _checks(results, colors),
        _made(results),
        _configs(results, colors),
        '<h2>Notes</h2>\n<ul class="soft">' + "".join(f"<li>{escape(note)}</li>" for note in notes(results)) + "</ul>",
        f"<footer>Made by lmzoo {escape(results.versions['lmzoo'])}; the same figures are in results.json.</footer>",
    ]
    return drawn_page(title, sections, drawn)


def drawn_page(title: str, sections: Sequence[str], drawn: dict[str, Figure]) -> str:
    """Make a page with figures, by their names."""
    return page(title, sections, css=_color_rules(), scripts=_scripts(drawn))


def page(title: str, sections: Sequence[str], *, css: str = "", scripts: str = "", policy: str = POLICY) -> str:
    """Make a page in the look of the reports from its sections, which are HTML.

    `css` is added to the style of all pages; `policy` is the Content-Security-Policy of the page.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('report.css')}{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + f"\n</main>\n{scripts}</body>\n</html>\n"
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


def _ranking(results: Results, colors: dict[str, int], drawn: dict[str, Figure]) -> str:
    interval = ""
    if results.statistics is not None:
        interval = (
            f" Means over {results.statistics.seeds} seeds with the {findings.PERCENT} interval; the short lines are "
            "the seeds. A rank such as 1–3 is not certain; equal ranks are in alphabetical order."
        )
    return (
        f'<h2>Ranking</h2>\n<p class="caption">By loss on the validation split: lower is better.{interval} In italics: '
        f"losses without any training. {escape(table.yardsticks_note(results))}</p>\n"
        f'{chart(drawn, "ranking", colors)}<div class="card scroll">{tables.ranking_table(results, colors)}</div>\n'
        f'<p class="caption">{escape(protocol.sentence(results))} {escape(table.copied_text(results))}</p>'
    )


def _conclusions(results: Results) -> str:
    can, cannot = conclusions(results)
    return (
        "<h2>What can and cannot be concluded</h2>\n"
        f"<p><b>It can.</b> {escape(can)}</p>\n<p><b>It cannot.</b> {escape(cannot)}</p>"
    )


def _differences(results: Results) -> str:
    """Make the table of every two models, which several seeds allow."""
    pairs = tables.pairs_table(results)
    if results.statistics is None or not pairs:
        return ""
    number = len(results.statistics.pairs)
    start, end = '<div class="card scroll">', "</div>"
    if number > MOST_PAIRS:
        start, end = (
            f'<details class="card"><summary>All {number} pairs</summary><div class="scroll">',
            "</div></details>",
        )
    return f'<h2>Differences</h2>\n<p class="caption">{escape(findings.PAIRS)}</p>\n{start}{pairs}{end}'


def _curves(results: Results, colors: dict[str, int], drawn: dict[str, Figure]) -> str:
    if "loss" not in drawn:
        return ""
    band = (
        f" The bands are the {findings.PERCENT} intervals of the mean over the seeds." if len(results.seeds) > 1 else ""
    )
    way = ""
    if protocol.differs_in_training(results):
        way = (
            " The losses are of windows that do not overlap and whose context is reset, so the last ones differ from "
            "the losses in the table."
        )
    limit = " and the entropy rate of the source, which is the limit" if results.corpus.get("entropy_rate") else ""
    return (
        '<h2>Loss while training</h2>\n<p class="caption">Validation loss in nats per token.'
        f"{way}{band} Dashed: the best counted n-gram{limit}. ✕: diverged. A training step is counted as three times "
        "the FLOPs of its forward pass; times follow from the mean training speed. The highest losses, at the start, "
        f"are cut off.</p>\n{chart(drawn, 'loss', colors)}"
    )


def _sensitivity(results: Results, colors: dict[str, int], drawn: dict[str, Figure]) -> str:
    """Make a section for each tuned setting."""
    parts = " The paler a line, the earlier in the training its losses were compared." if halved(results) else ""
    return "\n".join(
        f"<h2>Sensitivity to the {escape(setting_title(search['setting']))}</h2>\n"
        f'<p class="caption">{escape(TUNED)} In the figure, the chosen values are larger, and ✕ marks a run that '
        f"diverged.{parts}</p>\n{chart(drawn, sensitivity_name(results, search), colors)}"
        f'<div class="card scroll">{tables.sensitivity_table(search, colors)}</div>'
        for search in begun(results)
    )


def _costs(results: Results, colors: dict[str, int], drawn: dict[str, Figure]) -> str:
    figure = ""
    if "cost" in drawn:
        figure = (
            '<p class="caption">Filled: on the Pareto front, since no other model has certainly a lower loss at the '
            f"same cost or at a lower one. Speeds on {escape(_hardware(results))}. Decoding: one row, greedy, "
            f"{results.decode_tokens} tokens within the context, median of at most {REPEATS} repetitions.</p>\n"
            f"{chart(drawn, 'cost', colors)}"
        )
    return (
        f'<h2>Loss and cost</h2>\n{figure}<p class="caption">FLOPs of the forward pass, two per multiply-add; the '
        "state is the memory of one sequence while decoding.</p>\n"
        f'<div class="card scroll">{tables.cost_table([*results.ranked, *results.unranked], colors)}</div>'
    )


def _checks(results: Results, colors: dict[str, int]) -> str:
    checks = tables.checks_table([*results.ranked, *results.unranked], colors)
    if not checks:
        return ""
    return (
        '<h2>Checks</h2>\n<p class="caption">A small form of each model was checked before the training: that it sees '
        "no future token, decodes as its forward pass predicts, and reports the right loss. One that fails has no "
        "rank.</p>\n"
        f'<div class="card scroll">{checks}</div>'
    )


def _samples(results: Results, colors: dict[str, int]) -> str:
    figures = "\n".join(
        f'<figure class="card"><figcaption>{tables.swatch(colors[model.name])}{escape(model.name)}</figcaption>'
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
    return f"{results.hardware['device']}, {humanize.number(results.hardware['threads'], 'thread')}"


def _configs(results: Results, colors: dict[str, int]) -> str:
    """Make one folded list of all settings for each model."""
    parts = []
    for model in [*results.ranked, *results.unranked]:
        tables_of = {key: value for key, value in model.config.items() if isinstance(value, Mapping)}
        lines = [f"{key} = {_shown(value)}" for key, value in model.config.items() if key not in tables_of]
        for name, settings in tables_of.items():
            lines += [f"[{name}]", *(f"{key} = {_shown(value)}" for key, value in settings.items())]
        if lines:
            head = f"<summary>{tables.swatch(colors[model.name])}{escape(model.name)}</summary>"
            parts.append(f'<details class="card">{head}<pre>{escape(chr(10).join(lines))}</pre></details>')
    if not parts:
        return ""
    return '<h2>All settings</h2>\n<p class="caption">Of the run with the first seed.</p>\n' + "\n".join(parts)


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _scripts(drawn: dict[str, Figure]) -> str:
    """Make the scripts: the data of the figures, Vega-Lite, and what joins them; nothing if there is no figure.

    In the data, "<" is escaped: the end of a script element or a comment in a name would end the element.
    """
    if not drawn:
        return ""
    figures = {
        name: {"spec": figure.base, "axes": [asdict(axis) for axis in figure.axes]} for name, figure in drawn.items()
    }
    try:
        data = json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    except ValueError:
        raise InputError("the results hold a number that no figure can show") from None
    return (
        f'<script type="application/json" id="figures">{data}</script>\n'
        f"<script>{_asset('vega/vega.js')}</script>\n<script>{_asset('report.js')}</script>\n"
    )


def _asset(name: str) -> str:
    return resources.files("lmzoo.compare").joinpath(name).read_text(encoding="utf-8")


def _color_rules() -> str:
    return "".join(f".fill{i} {{ background: var(--s{i}); }}\n" for i in range(N_COLORS))
