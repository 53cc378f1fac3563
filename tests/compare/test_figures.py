"""Tests the figures of a comparison: their rows, intervals, axes, and the models on the Pareto front."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from lmzoo.compare import figures as figures_module
from lmzoo.compare.figure import Figure
from lmzoo.compare.figures import figures, loss_range, pareto_front
from lmzoo.compare.results import Results
from lmzoo.compare.statistics import mean_interval
from tests.compare.example import HOSTILE, everything, example, model, several_seeds


def by_name(results: Results) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(results)}


def rows(figure: Figure, **wanted: Any) -> list[dict[str, Any]]:
    found = figure.spec["data"]["values"]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def test_figures_are_those_that_the_results_allow() -> None:
    assert list(by_name(everything())) == ["ranking", "loss", "sensitivity", "cost"]
    assert list(by_name(example())) == ["ranking", "loss", "cost"]
    failed = dataclasses.replace(example(), models=[example().models[4]])
    assert figures(failed) == [], "the loss of a model that failed a check is not shown"


def test_ranking_has_places_means_intervals_and_seeds() -> None:
    results = everything()
    figure = by_name(results)["ranking"]
    assert [row["label"] for row in rows(figure)] == ["1   gpt2.tiny", "2   mamba.tiny", f"3   {HOSTILE}"]
    (row,) = rows(figure, model="gpt2.tiny")
    mean = results.statistics.means["gpt2.tiny"]
    assert (row["loss"], row["low"], row["high"]) == (pytest.approx(1.508), mean.low, mean.high)
    seeds = figure.spec["layer"][1]["data"]["values"]
    assert [row["loss"] for row in seeds if row["model"] == "gpt2.tiny"] == pytest.approx([1.507, 1.508, 1.509])
    alone = by_name(example())["ranking"]
    assert [layer["mark"]["type"] for layer in alone.spec["layer"]] == ["point", "rule", "text"]
    assert "low" not in rows(alone)[0]


def test_curves_have_tokens_flops_and_seconds() -> None:
    figure = by_name(everything())["loss"]
    (row,) = rows(figure, model="gpt2.tiny", tokens=2000)
    assert row["flops"] == 3 * 240_000 * 2000  # three forward passes
    assert row["seconds"] == pytest.approx(2000 / 48_000)
    assert [axis.field for axis in figure.axes] == ["tokens", "flops", "seconds"]
    assert [axis.log for axis in figure.axes] == [False, True, True]
    assert list(figure.models) == ["gpt2.tiny", "mamba.tiny", HOSTILE, "wild"]
    leaky = dataclasses.replace(example().models[4], curve=[[0, 4.0], [1000, 0.1]])
    assert by_name(dataclasses.replace(example(), models=[leaky])) == {}, "it may see future tokens"
    slow = dataclasses.replace(example(), models=[model("a", 1.5, flops_per_token=0.0, train_tokens_per_s=None)])
    assert [axis.field for axis in by_name(slow)["loss"].axes] == ["tokens"]


def test_curves_have_the_interval_of_the_seeds_at_each_point() -> None:
    results = everything()
    (row,) = rows(by_name(results)["loss"], model="mamba.tiny", tokens=1000)
    expected = mean_interval(np.array([cell.curve[2][1] for cell in results.models[1].cells]))
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    (start,) = rows(by_name(results)["loss"], model="mamba.tiny", tokens=0)
    assert start["low"] == pytest.approx(start["high"]) == pytest.approx(4.17), "all seeds are equal there"
    assert "low" not in rows(by_name(example())["loss"])[0]


def test_curves_mark_the_end_of_a_model_that_diverged() -> None:
    results = example()
    figure = by_name(results)["loss"]
    assert [(row["model"], row["tokens"], row["loss"]) for row in rows(figure, diverged=True)] == [("wild", 500, 3.0)]
    assert "cross" in [layer["mark"].get("shape") for layer in figure.spec["layer"]]
    finished = by_name(dataclasses.replace(results, models=results.ranked))["loss"]
    assert "cross" not in [layer["mark"].get("shape") for layer in finished.spec["layer"]]


def test_sensitivity_marks_chosen_and_diverged_values() -> None:
    figure = by_name(everything())["sensitivity"]
    assert [(row["value"], row["loss"], row["kind"]) for row in rows(figure, model="gpt2.tiny")] == [
        (0.005, 2.0, "tried"),
        (0.01, 1.7, "chosen"),
    ]
    crosses = figure.spec["layer"][2]["data"]["values"]
    low, high = figure.spec["encoding"]["y"]["scale"]["domain"]
    assert {row["value"] for row in crosses} == {0.02}
    assert all(2.0 < row["loss"] < high for row in crosses)
    assert low < 1.7
    assert figure.axes[0].title == "learning rate"


def test_costs_have_each_axis_that_was_measured() -> None:
    figure = by_name(everything())["cost"]
    assert [axis.field for axis in figure.axes] == [
        "decode_tokens_per_s",
        "train_tokens_per_s",
        "state_bytes",
        "params",
        "flops_per_token",
    ]
    (row,) = rows(figure, model="mamba.tiny")
    assert (row["decode_tokens_per_s"], row["front:decode_tokens_per_s"], row["front:state_bytes"]) == (
        450,
        False,
        True,
    )
    stateless = [model(name, 1.5, state_bytes=0, decode_tokens_per_s=None) for name in "ab"]
    fields = [axis.field for axis in by_name(dataclasses.replace(example(), models=stateless))["cost"].axes]
    assert fields == ["train_tokens_per_s", "params", "flops_per_token"], "zero has no place on a logarithmic axis"


def test_pareto_front_leaves_out_what_is_certainly_worse_and_costs_no_less() -> None:
    models = [
        model("best", 1.5, params=200),
        model("small", 1.6, params=100),
        model("worse", 1.7, params=100),
        model("large", 1.8, params=300),
    ]
    assert pareto_front(dataclasses.replace(example(), models=models), "params") == ["best", "small"]
    fast = [model("best", 1.5, decode_tokens_per_s=10.0), model("fast", 1.6, decode_tokens_per_s=20.0)]
    slow = model("slow", 1.6, decode_tokens_per_s=5.0)
    both = dataclasses.replace(example(), models=[*fast, slow])
    assert pareto_front(both, "decode_tokens_per_s") == ["best", "fast"]


def test_pareto_front_keeps_models_that_cannot_be_told_apart() -> None:
    results = several_seeds({"a": [1.5, 1.6, 1.4], "b": [1.52, 1.57, 1.45], "c": [2.5, 2.61, 2.4]})
    assert pareto_front(results, "params") == ["a", "b"]
    early = dataclasses.replace(results, statistics=None)
    assert pareto_front(early, "params") == ["a", "b", "c"]


def test_loss_range_leaves_out_the_first_fall_of_the_loss() -> None:
    curves = [[[0, 4.17], [10, 2.0], [20, 1.8]], [[0, 4.17], [10, 3.0], [20, 2.5]]]
    low, high = loss_range(curves, [3.3, 1.9])
    assert 1.6 < low < 1.8
    assert 3.0 < high < 3.3
    assert loss_range([[[0, 4.0], [1, 3.9], [2, 3.8]]], [3.3])[1] > 3.8  # a model worse than the unigram is still shown
    assert loss_range([[[0, 0.0]]], [])[0] > 0, "for a logarithmic axis"


def test_bands_need_two_seeds_that_finished() -> None:
    row = everything().models[0]
    assert figures_module._bands(dataclasses.replace(row, cells=row.cells[:1])) == {}
    ended = dataclasses.replace(row.cells[2], status="diverged", curve=[[0, math.pi]])
    assert set(figures_module._bands(dataclasses.replace(row, cells=[*row.cells[:2], ended]))) == {0, 500, 1000, 2000}
