"""Tests of `lmzoo.gallery.measured`: results in words and drawn."""

from __future__ import annotations

import re

import pytest

from lmzoo.gallery.measured import MARGIN, WIDTH, figures, made, number, results_html, seeds, strip_svg

RESULTS = {
    "preset": "1m",
    "bits_per_byte": 2.1217,
    "loss": 1.47,
    "params": 965760,
    "state_bytes": 155648,
    "budget": {"steps": 300, "batch_size": 16, "context_length": 128, "tokens": 614400},
    "learning_rate": 0.005,
    "corpus": {"name": "pydocs"},
    "versions": {"lmzoo": "0.1.0", "torch": "2.13.0"},
}
SPEEDS = {"decode_tokens_per_s": 1234.0, "hardware": {"threads": 1}}


def test_figures_has_what_was_measured_and_nothing_else() -> None:
    found = figures(RESULTS)
    assert found == {
        "bits per byte": "2.122",
        "validation loss": "1.470 nats per token",
        "parameters": "965,760",
        "decoding state": "155,648 bytes at the training length",
    }
    more = figures({**RESULTS, "bits_per_byte_interval": [2.1, 2.2], "speeds": SPEEDS, "loss": None})
    assert more["bits per byte"] == "2.122 (95 %: 2.100 to 2.200)"
    assert more["decoding"] == "1.23 k tokens per second"
    assert "validation loss" not in more


def test_made_says_how_many_seeds_there_were() -> None:
    assert (seeds(RESULTS), seeds({"budget": {"seeds": 3}})) == (1, 3)
    assert "one seed, which cannot tell neighbors apart" in made(RESULTS)
    budget = {"steps": 300, "seeds": 3, "optimizer": "muon"}
    assert "muon, learning rate 0.02, 3 seeds" in made({**RESULTS, "learning_rate": {"chosen": 0.02}, "budget": budget})


def test_made_names_the_precision_where_it_was_recorded() -> None:
    assert "learning rate 0.005, bf16, one seed" in made({**RESULTS, "precision": "bf16"})
    assert made({**RESULTS, "precision": None}) == made(RESULTS)


def test_number_is_none_for_anything_else() -> None:
    assert number(RESULTS, "params") == 965760
    assert [number({"a": wrong}, "a") for wrong in ("1", True, None, [1])] == [None] * 4


def test_results_html_survives_a_file_with_other_content() -> None:
    wrong = dict.fromkeys([*RESULTS, "bits_per_byte_interval", "hardware"], "<i>")
    assert "<i>" not in results_html(wrong, [2.0])


def test_results_html_says_when_nothing_was_measured() -> None:
    for nothing in ({}, {"checks": {"passed": {"causality": True}}}):
        assert "Not measured yet" in results_html(nothing, [2.0, 3.0])
    text = results_html({**RESULTS, "problem": "<b>"}, [2.0, 2.1217, 3.0])
    assert "<b>" not in text
    assert "<svg" in text
    assert "as many seeds" in text
    assert "as many seeds" not in results_html(RESULTS, [2.1217]), "without ticks there is nothing to compare with"


def test_strip_svg_has_a_tick_for_each_family() -> None:
    text = strip_svg(3.0, [2.0, 3.0, 4.0])
    assert [float(x) for x in re.findall(r'class="tick" d="M(\S+) ', text)] == pytest.approx(
        [MARGIN, WIDTH / 2, WIDTH - MARGIN]
    )
    assert float(re.findall(r'class="own" d="M(\S+) ', text)[0]) == WIDTH / 2
