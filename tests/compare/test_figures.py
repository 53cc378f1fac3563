"""Tests the figures of a comparison: their rows, intervals, axes, and the lines of references."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from lmzoo.compare.figure import Figure
from lmzoo.compare.figures import figures, loss_range
from lmzoo.compare.results import Results
from lmzoo.compare.statistics import mean_interval
from tests.compare.example import HOSTILE, LOGGED, everything, example, model


def by_name(results: Results) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(results)}


def rows(figure: Figure, **wanted: Any) -> list[dict[str, Any]]:
    found = figure.spec["data"]["values"]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def test_figures_are_those_that_the_results_allow() -> None:
    assert list(by_name(everything())) == ["ranking", "loss", "sensitivity", "positions", "classes", "cost"]
    assert list(by_name(example())) == ["ranking", "loss", "cost"]
    shown = [figure.name for figure in figures(everything(), LOGGED)]
    together = ["largest-logit", "state-norm", "router-load"]
    assert shown[5:] == ["cost", *together, "activations-1", "activations-2", "gradients-1"]
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


def test_ranking_names_a_reference_on_the_side_that_has_room() -> None:
    """The label of a line at the right end would be cut off there."""

    def sides(**losses: float) -> list[tuple[str, int]]:
        found = [dataclasses.replace(line, loss=losses["reference"]) for line in example().references[:1]]
        rate = {"nats": losses["limit"], "error": 0.0}
        results = dataclasses.replace(example(), references=found)
        results = dataclasses.replace(results, corpus={**results.corpus, "entropy_rate": rate})
        marks = [layer["mark"] for layer in by_name(results)["ranking"].spec["layer"]]
        return [(mark["align"], mark["dx"]) for mark in marks if mark["type"] == "text"]

    assert sides(reference=2.4, limit=1.25) == [("right", -5), ("left", 5)]  # the models are from 1.5 to 1.9
    assert sides(reference=1.4, limit=1.25) == [("left", 5), ("left", 5)]


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


def test_curves_of_one_evaluation_are_points() -> None:
    """A line through one point has no length, and its band has no width: the figure would be empty."""

    def marks(results: Results) -> list[tuple[str, float | None]]:
        layers = by_name(results)["loss"].spec["layer"][:3]
        return [(layer["mark"]["type"], layer["mark"].get("opacity")) for layer in layers]

    results = everything()
    assert marks(results) == [("area", 0.2), ("line", None), ("point", 0)]
    ended = [dataclasses.replace(each, curve=each.curve[-1:]) for each in results.models if each.curve]
    assert marks(dataclasses.replace(results, models=ended)) == [("rule", 0.45), ("line", None), ("point", 1)]


def test_curves_mark_the_end_of_a_model_that_diverged() -> None:
    results = example()
    figure = by_name(results)["loss"]
    assert [(row["model"], row["tokens"], row["loss"]) for row in rows(figure, diverged=True)] == [("wild", 500, 3.0)]
    assert "cross" in [layer["mark"].get("shape") for layer in figure.spec["layer"]]
    finished = by_name(dataclasses.replace(results, models=results.ranked))["loss"]
    assert "cross" not in [layer["mark"].get("shape") for layer in finished.spec["layer"]]


def test_loss_range_leaves_out_the_first_fall_of_the_loss() -> None:
    curves = [[[0, 4.17], [10, 2.0], [20, 1.8]], [[0, 4.17], [10, 3.0], [20, 2.5]]]
    low, high = loss_range(curves, [3.3, 1.9])
    assert 1.6 < low < 1.8
    assert 3.0 < high < 3.3
    assert loss_range([[[0, 4.0], [1, 3.9], [2, 3.8]]], [3.3])[1] > 3.8  # a model worse than the unigram is still shown
    assert loss_range([[[0, 0.0]]], [])[0] > 0, "for a logarithmic axis"


def test_curves_have_bands_of_the_seeds_that_finished() -> None:
    row = everything().models[0]
    ended = dataclasses.replace(row.cells[2], status="diverged", curve=[[0, math.pi]])
    models = [dataclasses.replace(row, cells=cells) for cells in ([*row.cells[:2], ended], row.cells[:1])]
    for one, points in zip(models, (4, 0), strict=True):
        figure = by_name(dataclasses.replace(everything(), models=[one], statistics=None))["loss"]
        assert sum("low" in found for found in rows(figure)) == points


def test_ranking_and_curves_have_the_entropy_rate_of_a_source() -> None:
    for name in ("ranking", "loss"):
        assert set(_texts(by_name(everything())[name])) == {"3-gram 1.70", "entropy rate 1.25"}
        assert set(_texts(by_name(example())[name])) == {"3-gram 1.70"}
    assert by_name(everything())["loss"].spec["encoding"]["y"]["scale"]["domain"][0] < 1.25


def _texts(figure: Figure) -> list[str]:
    lines = [line for layer in figure.spec["layer"] if "data" in layer for line in layer["data"]["values"]]
    return [line["text"] for line in lines if "text" in line]
