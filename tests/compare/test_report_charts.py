"""Tests the sections of the report around its figures: captions, tables, small figures, and their frames."""

from __future__ import annotations

import dataclasses
from html import escape

from lmzoo.compare.figures import figures
from lmzoo.compare.report import html
from lmzoo.compare.report_charts import activations, chart, classes, positions
from lmzoo.compare.results import Results, model_colors
from lmzoo.compare.token_classes import MEANINGS
from tests.compare.example import HOSTILE, everything, example

LOGGED = {
    name: [{"tokens": n, "block": block, "rms": 1.0 + n * block} for n in (1, 2) for block in range(2)]
    for name in ("gpt2.tiny", HOSTILE)
}


def sections(results: Results) -> tuple[str, str, str]:
    colors, drawn = model_colors(results), {figure.name: figure for figure in figures(results, LOGGED)}
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
    section, _, _ = sections(near)
    assert "extrapolate" not in section
    assert "intervals" not in section


def test_classes_state_their_meanings_and_hold_a_table_with_shares() -> None:
    _, section, _ = sections(everything())
    assert all(f"<b>{name}</b>: {meaning}" in section for name, meaning in MEANINGS.items())
    assert '<td data-label="repeated bigram">20.0 %</td>' in section
    assert "The bars are the 95 % intervals" in section


def test_activations_have_a_small_figure_for_each_model() -> None:
    _, _, section = sections(everything())
    assert section.count("<figcaption>") == section.count("data-figure=") == 2
    assert "of the run with the first seed" in section
    assert HOSTILE not in section
    assert "Activations while training" in html(everything(), LOGGED)
    assert "Activations while training" not in html(everything())


def test_sections_are_empty_without_what_they_show() -> None:
    assert sections(example())[:2] == ("", "")


def test_chart_has_controls_only_where_there_is_a_choice() -> None:
    results = everything()
    drawn = {figure.name: figure for figure in figures(results, LOGGED)}
    colors = model_colors(results)
    assert 'hidden></form><div class="plot">' in chart(drawn, "activations-1", colors)
    assert "log-y" in chart(drawn, "positions", colors)
    assert "log-x" not in chart(drawn, "positions", colors)
    assert chart(drawn, "unknown", colors) == ""
