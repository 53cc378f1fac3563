"""Tests of `lmzoo.gallery.overview`: cards, filter, plot and time line."""

from __future__ import annotations

import dataclasses
import json
import re

import vl_convert

from lmzoo.gallery.facts import gather
from lmzoo.gallery.measured import seeds
from lmzoo.gallery.overview import overview, parts, plot, traits

FAMILIES = [gather(name) for name in ("bigram", "gpt2", "mamba", "mixtral")]


def test_overview_has_a_card_and_a_place_in_time_for_each_family() -> None:
    text = overview(FAMILIES)
    assert re.findall(r'<a class="family \w+" href="(\w+)\.html"', text) == ["bigram", "gpt2", "mamba", "mixtral"]
    assert re.findall(r"<time>(\d+)</time>", text) == ["1948", "2019", "2023", "2024"]
    assert text.count('data-family="mamba"') == 2
    assert "<output>4 families</output>" in text


def test_traits_are_those_of_the_model() -> None:
    assert traits(gather("mamba")) == {
        "kind": "linear",
        "state": "constant",
        "beyond": "yes",
        "parts": " ".join(parts(gather("mamba"))),
    }
    assert "short_conv" in parts(gather("mamba"))
    assert "experts" in parts(gather("mixtral"))
    assert "experts" not in parts(gather("llama"))


def test_plot_has_only_axes_with_data() -> None:
    spec, axes = plot(FAMILIES)
    assert "params" in axes
    assert [row["family"] for row in spec["data"]["values"]] == ["bigram", "gpt2", "mamba", "mixtral"]
    assert {"decode_tokens_per_s", "train_tokens_per_s"} <= {*axes}
    assert plot(FAMILIES[1:2])[1] == {}  # one family is no comparison


def test_plot_fills_what_was_measured_with_several_seeds() -> None:
    spec, _ = plot(FAMILIES)
    rows = spec["data"]["values"]
    assert [row["seeds"] for row in rows] == [seeds(facts.family.results) for facts in FAMILIES]
    spec["encoding"]["x"]["field"] = "params"
    for row, n_seeds in zip(rows, (1, 3, 1, 5), strict=True):
        row["seeds"] = n_seeds
    drawn = vl_convert.vegalite_to_svg({**spec, "width": 300})
    points = re.findall(r'<path aria-label="[^"]*seeds: (\d)[^>]*>', drawn)
    hollow = re.findall(r'<path aria-label="[^"]*seeds: (\d)[^>]* fill-opacity="0"[^>]*>', drawn)
    assert (sorted(points), hollow) == (["1", "1", "3", "5"], ["1", "1"])


def test_plot_is_a_specification_that_vega_lite_draws() -> None:
    spec, axes = plot(FAMILIES)
    for field in axes:
        spec["encoding"]["x"]["field"] = field
        spec["data"]["values"] = [row for row in spec["data"]["values"] if row[field]]
        assert "<svg" in vl_convert.vegalite_to_svg({**spec, "width": 300})


def test_overview_escapes_what_an_entry_says() -> None:
    hostile = '"></script><script>alert(1)</script>'
    facts = FAMILIES[1]
    family = dataclasses.replace(facts.family, facts={**facts.family.facts, "title": hostile, "summary": hostile})
    text = overview([dataclasses.replace(facts, family=family)])
    assert "<script>alert" not in text
    (data,) = re.findall(r'<script type="application/json" class="spec">(.*?)</script>', text)
    assert json.loads(data)["data"]["values"][0]["name"] == hostile


def test_overview_without_results_has_no_plot() -> None:
    family = dataclasses.replace(FAMILIES[0].family, folder=None)
    assert 'class="plot"' not in overview([dataclasses.replace(FAMILIES[0], family=family)])
