"""Tests the figures of the loss by a tuned setting: chosen values, runs that diverged or were stopped, and axes."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from lmzoo.compare.figure import Figure
from lmzoo.compare.figures_of_tuning import PALEST, sensitivities, sensitivity_name
from lmzoo.compare.results import Results, model_colors
from lmzoo.compare.tuning import searches
from tests.compare.example import everything, example, two_searches


def drawn(results: Results) -> list[Figure]:
    return sensitivities(results, model_colors(results))


def rows(figure: Figure, **wanted: Any) -> list[dict[str, Any]]:
    found = figure.spec["data"]["values"]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def test_sensitivities_mark_chosen_and_diverged_values() -> None:
    (figure,) = drawn(everything())
    assert [(row["value"], row["loss"], row["kind"]) for row in rows(figure, model="gpt2.tiny")] == [
        (0.005, 2.0, "tried"),
        (0.01, 1.7, "chosen"),
    ]
    crosses = figure.spec["layer"][2]["data"]["values"]
    low, high = figure.spec["encoding"]["y"]["scale"]["domain"]
    assert {row["value"] for row in crosses} == {0.02}
    assert all(2.0 < row["loss"] < high for row in crosses)
    assert low < 1.7
    assert (figure.axes[0].title, figure.axes[0].log) == ("learning rate", True)
    assert "opacity" not in figure.spec["encoding"]
    assert drawn(example()) == []


def test_sensitivities_draw_a_line_for_each_part_of_the_training() -> None:
    figure, second = drawn(two_searches())
    lines = {part: [(row["value"], row["loss"], row["kind"]) for row in rows(figure, part=part)] for part in range(3)}
    assert lines == {
        0: [(0.005, 2.5, "tried"), (0.01, 2.4, "tried"), (0.02, 2.6, "stopped"), (0.04, 3.0, "tried")],
        1: [(0.005, 2.0, "tried"), (0.01, 1.9, "tried")],
        2: [(0.005, 1.5, "tried"), (0.01, 1.4, "chosen")],
    }
    assert [row["value"] for row in figure.spec["layer"][2]["data"]["values"]] == [0.04]
    opacity = figure.spec["encoding"]["opacity"]["scale"]
    assert opacity == {"domain": [0, 1, 2], "range": [PALEST, 1]}
    assert second.axes[0].title == "warm-up steps"
    assert not second.axes[0].log, "no steps are one of the values"
    assert {row["kind"] for row in rows(second, part=2, value=0.0)} == {"chosen"}


def test_sensitivities_show_final_rates_as_percent() -> None:
    results = two_searches()
    tuning = copy.deepcopy(dict(results.tuning))
    tuning["then"][0] |= {"setting": "min_learning_rate"}
    figure = drawn(dataclasses.replace(results, tuning=tuning))[1]
    assert figure.axes[0].title == "final learning rate (share of the highest)"
    assert figure.spec["encoding"]["x"]["axis"]["format"] == ".1~%"


def test_sensitivity_name_is_that_of_earlier_reports_for_the_first_setting() -> None:
    results = two_searches()
    names = [sensitivity_name(results, search) for search in searches(results.tuning)]
    assert names == ["sensitivity", "sensitivity-warmup_steps"] == [figure.name for figure in drawn(results)]
