"""Tests the figures of the loss by position and by class: rows, intervals, labels, and the range of losses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from lmzoo.compare.figure import Figure
from lmzoo.compare.figures_of_losses import classes, position_range, positions
from lmzoo.compare.results import Results, model_colors
from lmzoo.compare.statistics import mean_interval
from tests.compare.example import everything, example, model


def rows(figure: Figure | None, **wanted: Any) -> list[dict[str, Any]]:
    assert figure is not None
    found = figure.spec["data"]["values"]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def marks(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [layer["mark"]["type"] for layer in figure.spec["layer"]]


def of(results: Results) -> tuple[Figure | None, Figure | None]:
    colors = model_colors(results)
    return positions(results, colors), classes(results, colors)


def test_positions_have_the_middle_of_each_range_and_the_interval_of_the_seeds() -> None:
    results = everything()
    figure, _ = of(results)
    first = rows(figure, model="gpt2.tiny")
    assert [row["range"] for row in first] == ["1", "2", "3–4", "5", "6–8", "9–16", "17–20"]
    assert [row["position"] for row in first[:3]] == pytest.approx([1, 2, math.sqrt(12)])
    assert [row["loss"] for row in first[:2]] == pytest.approx([1.508 + 0.5, 1.508 + 0.25])
    expected = mean_interval(np.array([cell.by_position[1]["loss"] for cell in results.models[0].cells]))
    assert (first[1]["low"], first[1]["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert ["low" in row for row in first] == [True] * 4 + [False] * 3, "beyond, there is the first seed only"
    assert len(rows(figure, model="mamba.tiny")) == 4


def test_positions_mark_the_training_length_where_a_model_goes_beyond() -> None:
    results = everything()
    figure, _ = of(results)
    assert marks(figure) == ["area", "line", "point", "rule", "text"]
    assert figure is not None
    assert figure.spec["layer"][3]["data"]["values"] == [{"position": 5.5, "text": "training length 5"}]
    near = dataclasses.replace(results, models=results.models[1:3])
    assert marks(of(near)[0]) == ["area", "line", "point"]
    alone = dataclasses.replace(results.models[1], cells=())
    assert marks(of(dataclasses.replace(results, models=[alone], seeds=[7], statistics=None))[0]) == ["line", "point"]


def test_positions_leave_out_losses_that_are_not_finite() -> None:
    parts = [{"first": n, "last": n, "loss": loss, "tokens": 9} for n, loss in ((1, 2.0), (2, None))]
    figure, _ = of(dataclasses.replace(example(), models=[model("a", 1.5, by_position=parts)]))
    assert [row["position"] for row in rows(figure)] == [1]


def test_position_range_cuts_off_losses_worse_than_a_uniform_guess_beyond_the_training_length() -> None:
    found = [{"position": 1, "loss": 3.0}, {"position": 4, "loss": 2.0}, {"position": 9, "loss": 50.0}]
    low, high = position_range(found, 4, 65)
    assert 1.8 < low < 2.0
    assert math.log(65) < high < math.log(65) + 0.3
    assert position_range([{"position": 1, "loss": 6.0}], 4, 65)[1] > 6.0, "a loss within it is shown"


def test_classes_have_shares_intervals_and_all_tokens_first() -> None:
    results = everything()
    _, figure = of(results)
    found = rows(figure, model="gpt2.tiny")
    assert [row["label"] for row in found[:2]] == ["all tokens", "repeated bigram (20.0 %)"]  # 100 of 499
    assert "rare" not in [row["class"] for row in found], "there is no rare token"
    assert (found[0]["loss"], found[2]["loss"]) == (pytest.approx(1.508), pytest.approx(1.608))
    for number, losses in ((0, [1.507, 1.508, 1.509]), (2, [1.607, 1.608, 1.609])):
        expected = mean_interval(np.array(losses))
        assert (found[number]["low"], found[number]["high"]) == pytest.approx((expected.low, expected.high))
    assert marks(figure) == ["rule", "point"]
    alone = dataclasses.replace(results.models[1], cells=())
    assert marks(of(dataclasses.replace(results, models=[alone], seeds=[7], statistics=None))[1]) == ["point"]


def test_figures_of_losses_are_those_of_ranked_models() -> None:
    assert of(example()) == (None, None)
    results = everything()
    failed = [dataclasses.replace(row, status="failed") for row in results.models[:1]]
    assert of(dataclasses.replace(results, models=failed, statistics=None)) == (None, None), "it may see future tokens"
