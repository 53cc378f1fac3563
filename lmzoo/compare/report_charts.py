"""Makes the frames of the figures in the report, and the sections that show where the loss of a model comes from.

All outside text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lmzoo.compare import findings, loss_tables, probe_tables
from lmzoo.compare import report_tables as tables
from lmzoo.compare.figure import Figure
from lmzoo.compare.results import Results
from lmzoo.compare.token_classes import MEANINGS

NO_SCRIPT = (
    "<noscript>The figure is drawn by a script, which is not allowed here; results.json has its data.</noscript>"
)

# The figures of activations that show all models: title and explanation.
ACTIVATIONS = {
    "largest-logit": ("Largest logit", "By absolute value."),
    "state-norm": ("State by position", "Its norm by tokens read, at the last evaluation."),
    "router-load": ("Load of experts", "Most and least used. Dotted: the even share."),
}
# The figures of activations of each model, by the first part of their names: explanation.
OF_EACH_MODEL = {
    "activations": "Residual RMS: the root mean square of the features. The palest line is before the first block, the "
    "fullest after the last one.",
    "gradients": "Gradient norm by role of parameters, before clipping.",
}


def chart(drawn: Mapping[str, Figure], name: str, colors: dict[str, int]) -> str:
    """Make the frame of a figure: the controls, and the place in which report.js draws it."""
    figure = drawn.get(name)
    if figure is None:
        return ""
    groups = []
    if len(figure.axes) > 1:
        buttons = "".join(
            f'<label><input type="radio" name="axis" value="{number}"{" checked" if not number else ""}>'
            f"{escape(axis.label)}</label>"
            for number, axis in enumerate(figure.axes)
        )
        groups.append(f'<fieldset class="axis"><legend>x axis</legend>{buttons}</fieldset>')
    if figure.scales:
        logs = {"x": figure.axes[0].log, "y": False}
        boxes = "".join(
            f'<label><input type="checkbox" name="log-{axis}"{" checked" if logs[axis] else ""}>log {axis}</label>'
            for axis in figure.scales
        )
        groups.append(f"<fieldset><legend>scale</legend>{boxes}</fieldset>")
    if len(figure.models) > 1:
        groups.append(_models(figure.models, colors))
    place = f'<div class="plot"></div>{NO_SCRIPT}'
    return f'<div class="card chart" data-figure="{escape(name)}">{_form(groups)}{place}</div>\n'


def positions(results: Results, colors: dict[str, int], drawn: Mapping[str, Figure]) -> str:
    """Make the section of the loss by position; empty if it was not measured."""
    table = loss_tables.position_table(results)
    if table is None or "positions" not in drawn:
        return ""
    beyond = (
        " A model whose loss rises clearly beyond it does not extrapolate; losses worse than a uniform guess are cut "
        "off."
        if any(part["last"] > results.budget["context_length"] for m in results.ranked for part in m.by_position)
        else ""
    )
    return (
        f'<h2>Loss by position</h2>\n<p class="caption">{escape(loss_tables.positions_note(results))}{beyond} A '
        f"curve that goes on falling shows that more context helps.{_interval(results, 'bands')}</p>\n"
        f"{chart(drawn, 'positions', colors)}{_folded(table, colors)}"
    )


def classes(results: Results, colors: dict[str, int], drawn: Mapping[str, Figure]) -> str:
    """Make the section of the loss by class of token; empty if it was not measured."""
    table = loss_tables.class_table(results)
    if table is None or "classes" not in drawn:
        return ""
    meanings = "; ".join(f"<b>{escape(name)}</b>: {escape(meaning)}" for name, meaning in MEANINGS.items())
    return (
        '<h2>Loss by class of token</h2>\n<p class="caption">Mean loss by class of the token to predict, and the share '
        f"of the class; a token may be in several. {meanings}.{_interval(results, 'bars')}</p>\n"
        f"{chart(drawn, 'classes', colors)}{_folded(table, colors)}"
    )


def probes(results: Results, colors: dict[str, int], drawn: Mapping[str, Figure]) -> str:
    """Make the section of the probes; empty without any."""
    table = probe_tables.probe_table(results)
    if table is None or "probes" not in drawn:
        return ""
    skills = {level["probe"]: (level["skill"], level["paper"]) for level in results.probes["levels"]}
    listed = "; ".join(
        f"<b>{escape(name)}</b> {escape(skill)} ({escape(paper)})" for name, (skill, paper) in skills.items()
    )
    failed = "".join(f'<p class="caption">{escape(text)}</p>\n' for text in probe_tables.problems(results))
    return (
        f'<h2>Probes</h2>\n<p class="caption">{escape(probe_tables.probe_note(results))} In the figure, the '
        f"fuller the color, the further is a model from chance to solved; bold: solved; ✕: no accuracy. {listed}.</p>\n"
        f"{chart(drawn, 'probes', colors)}{failed}{_folded(table, colors)}"
    )


def activations(results: Results, colors: dict[str, int], drawn: Mapping[str, Figure]) -> str:
    """Make the section of the activation statistics: figures of all models, then one of each model.

    The figures of all models have one form for all of them. Empty without the logs of the runs.
    """
    together = [drawn[name] for name in ACTIVATIONS if name in drawn]
    alone = [[figure for name, figure in drawn.items() if name.startswith(f"{kind}-")] for kind in OF_EACH_MODEL]
    if not together and not any(alone):
        return ""
    several = " Of the runs with the first seed." if len(results.seeds) > 1 else ""
    parts = [
        '<h2>Activations while training</h2>\n<p class="caption">Measured at each evaluation, on the same validation '
        f"text for all. What grows without end, or jumps, announces a training that diverges.{several}</p>\n"
    ]
    if together:
        names = [name for name in colors if any(name in figure.models for figure in together)]
        form = _form([_models(names, colors)] if len(names) > 1 else [])
        cards = "".join(_shared_card(figure) for figure in together)
        parts.append(f'<div data-shared>{form}<div class="samples">{cards}</div></div>\n')
    for caption, figures in zip(OF_EACH_MODEL.values(), alone, strict=True):
        if figures:
            cards = "\n".join(
                f'<figure class="card"><figcaption>{tables.swatch(colors[model])}{escape(model)}</figcaption>'
                f"{chart(drawn, figure.name, colors)}</figure>"
                for figure in figures
                for model in figure.models
            )
            parts.append(f'<p class="caption">{caption}</p>\n<div class="samples">{cards}</div>\n')
    return "".join(parts)


def _shared_card(figure: Figure) -> str:
    """Make a small card of a figure without controls of its own: its group has one form for all figures."""
    title, note = ACTIVATIONS[figure.name]
    return (
        f'<figure class="card"><figcaption>{title} <small>{note}</small></figcaption>'
        f'<div class="chart" data-figure="{figure.name}"><div class="plot"></div>{NO_SCRIPT}</div></figure>'
    )


def _models(names: Sequence[str], colors: dict[str, int]) -> str:
    """Make the boxes that show and hide models."""
    boxes = "".join(
        f'<label><input type="checkbox" name="model" value="{escape(name)}" checked>'
        f"{tables.swatch(colors[name])}{escape(name)}</label>"
        for name in names
    )
    return f'<fieldset class="models"><legend>models</legend>{boxes}</fieldset>'


def _form(groups: Sequence[str]) -> str:
    return f'<form class="controls" autocomplete="off" hidden>{"".join(groups)}</form>'


def _interval(results: Results, marks: str) -> str:
    if len(results.seeds) < 2:
        return ""
    return f" The {marks} are the {findings.PERCENT} intervals of the mean over the seeds."


def _folded(table: loss_tables.Table, colors: dict[str, int]) -> str:
    return (
        '<details class="card"><summary>The same as a table</summary><div class="scroll">'
        f"{tables.text_table(*table, colors)}</div></details>"
    )
