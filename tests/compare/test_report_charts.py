"""Tests the sections of the report around its figures: captions, tables, small figures, and their frames."""

from __future__ import annotations

import dataclasses
from html import escape

from lmzoo.compare.activations import Activations
from lmzoo.compare.figures import figures
from lmzoo.compare.report import html
from lmzoo.compare.report_charts import ACTIVATIONS, activations, chart, classes, positions
from lmzoo.compare.results import Results, model_colors
from lmzoo.compare.token_classes import MEANINGS
from tests.compare.example import HOSTILE, LOGGED, everything, example

HOSTILE_TOO = dataclasses.replace(
    LOGGED, largest_logit={**LOGGED.largest_logit, HOSTILE: LOGGED.largest_logit["gpt2.tiny"]}
)


def sections(results: Results, logged: Activations = HOSTILE_TOO) -> tuple[str, str, str]:
    colors, drawn = model_colors(results), {figure.name: figure for figure in figures(results, logged)}
    return positions(results, colors, drawn), classes(results, colors, drawn), activations(results, colors, drawn)


def test_positions_say_what_lies_beyond_the_training_length_and_hold_a_table() -> None:
    section, _, _ = sections(everything())
    assert "Above 5, the training length" in section
    assert "does not extrapolate" in section
    assert "The bands are the 95 % intervals" in section
    assert '<td data-label="6–8">' in section
    assert escape(HOSTILE) in section
    assert HOSTILE not in section
    near = dataclasses.replace(everything(), models=everything().models[1:3], seeds=[7], statistics=None)
    section, _, _ = sections(near, Activations())
    assert "extrapolate" not in section
    assert "intervals" not in section


def test_classes_state_their_meanings_and_hold_a_table_with_shares() -> None:
    _, section, _ = sections(everything())
    assert all(f"<b>{name}</b>: {meaning}" in section for name, meaning in MEANINGS.items())
    assert '<td data-label="repeated bigram">20.0 %</td>' in section
    assert "The bars are the 95 % intervals" in section


def test_activations_have_figures_of_all_models_with_one_form_and_one_of_each_model() -> None:
    _, _, section = sections(everything())
    assert section.count("<figcaption>") == section.count("data-figure=") == 6
    shared = section[section.index("<div data-shared>") : section.index("Residual RMS")]
    assert shared.count("<form") == shared.count("</form>") == 1
    assert [shared.count(f'data-figure="{name}"') for name in ACTIVATIONS] == [1, 1, 1]
    assert [name in shared for name in ("gpt2.tiny", "mamba.tiny", escape(HOSTILE), "wild")] == [
        True,
        True,
        True,
        False,
    ]
    assert "Of the runs with the first seed" in section
    assert HOSTILE not in section
    assert "Activations while training" in html(everything(), LOGGED)
    assert "Activations while training" not in html(everything())


def test_activations_of_one_kind_leave_out_the_others() -> None:
    _, _, section = sections(everything(), Activations(residual_rms=LOGGED.residual_rms))
    assert "data-shared" not in section
    assert section.count("data-figure=") == 2
    _, _, section = sections(everything(), Activations(grad_norms=LOGGED.grad_norms))
    assert [section.count(text) for text in ("data-figure=", "Gradient norm", "Residual RMS")] == [1, 1, 0]
    _, _, section = sections(everything(), Activations(state_norm=LOGGED.state_norm))
    assert "Residual RMS" not in section
    assert "Gradient norm" not in section
    assert section.count('<form class="controls" autocomplete="off" hidden></form>') == 1, "nothing to choose"


def test_sections_are_empty_without_what_they_show() -> None:
    assert sections(example(), Activations()) == ("", "", "")


def test_chart_has_controls_only_where_there_is_a_choice() -> None:
    results = everything()
    drawn = {figure.name: figure for figure in figures(results, HOSTILE_TOO)}
    colors = model_colors(results)
    assert 'hidden></form><div class="plot">' in chart(drawn, "activations-1", colors)
    assert "log-y" in chart(drawn, "positions", colors)
    assert "log-x" not in chart(drawn, "positions", colors)
    assert chart(drawn, "unknown", colors) == ""
