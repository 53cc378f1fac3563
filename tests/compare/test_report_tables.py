"""Tests the tables of the report as HTML."""

from __future__ import annotations

import dataclasses

from lmzoo.compare.figure import N_COLORS
from lmzoo.compare.report_tables import (
    checks_table,
    cost_table,
    pairs_table,
    ranking_table,
    sensitivity_table,
    swatch,
)
from lmzoo.compare.results import model_colors
from tests.compare.example import HOSTILE, everything, example
from tests.compare.test_report import read


def test_ranking_table_is_the_notebook_form_of_results() -> None:
    results = example()
    shown = results._repr_html_()
    assert shown == ranking_table(results)
    assert "swatch" not in shown
    read(shown)
    assert repr(results) == "<comparison of 5 models on sea.txt, best best at 1.500 nats per token>"


def test_ranking_table_shows_a_model_that_failed_without_a_rank_or_a_loss() -> None:
    shown = ranking_table(example(), model_colors(example()))
    assert '<tr class="unranked"><td class="rank" data-label="rank"></td>' in shown
    assert "failed: failed causality" in shown
    assert "0.100" not in shown


def test_pairs_table_escapes_names_and_is_empty_for_one_seed() -> None:
    shown = pairs_table(everything((HOSTILE, "gpt2.tiny", HOSTILE + "2")))  # as the first and as the second of a pair
    assert read(shown).text.count(HOSTILE) > 4
    assert '<th class="text">model</th><th class="text">other model</th><th>difference</th>' in shown
    assert "<img" not in shown
    assert shown.count("<tr>") == 4  # the headings and three pairs
    assert pairs_table(example()) == ""


def test_sensitivity_table_marks_the_chosen_value() -> None:
    shown = sensitivity_table(everything().tuning, model_colors(everything()))
    assert shown.count("<b>1.700</b>") == 3
    assert shown.count("diverged") == 3
    read(shown)


def test_cost_table_has_sizes_and_times() -> None:
    results = example()
    text = read(cost_table(results.ranked, model_colors(results))).text
    assert all(cell in text for cell in ("113 k", "240 k", "16.4 kB", "32 s"))


def test_checks_table_has_a_verdict_for_each_model_that_was_checked() -> None:
    results = everything()
    text = read(checks_table(results.models, model_colors(results))).text
    assert text.count("passed all 2") == 3
    assert "failed: causality; no rank" in text
    assert "wild" not in text, "its checks are not recorded"
    bare = [dataclasses.replace(model, checks={}) for model in results.models]
    assert checks_table(bare, model_colors(results)) == ""


def test_swatch_is_dashed_where_the_color_repeats() -> None:
    assert swatch(1) == '<i class="swatch fill1"></i>'
    assert swatch(N_COLORS + 1) == '<i class="swatch fill1 dashed"></i>'
