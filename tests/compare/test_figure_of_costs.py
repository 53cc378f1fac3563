"""Tests the figure of loss against cost: its axes, and the models on the Pareto front."""

from __future__ import annotations

import dataclasses

from lmzoo.compare.figure import Figure
from lmzoo.compare.figure_of_costs import costs, pareto_front
from lmzoo.compare.results import Results, model_colors
from tests.compare.example import everything, example, model, several_seeds


def drawn(results: Results) -> Figure:
    figure = costs(results, model_colors(results))
    assert figure is not None
    return figure


def test_costs_have_each_axis_that_was_measured() -> None:
    figure = drawn(everything())
    assert [axis.field for axis in figure.axes] == [
        "decode_tokens_per_s",
        "train_tokens_per_s",
        "state_bytes",
        "params",
        "flops_per_token",
    ]
    (row,) = [row for row in figure.spec["data"]["values"] if row["model"] == "mamba.tiny"]
    assert (row["decode_tokens_per_s"], row["front:decode_tokens_per_s"], row["front:state_bytes"]) == (
        450,
        False,
        True,
    )
    stateless = [model(name, 1.5, state_bytes=0, decode_tokens_per_s=None) for name in "ab"]
    fields = [axis.field for axis in drawn(dataclasses.replace(example(), models=stateless)).axes]
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
