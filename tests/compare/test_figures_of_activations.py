"""Tests the figures of activation statistics: their rows, axes and colors."""

from __future__ import annotations

from typing import Any

import pytest

from lmzoo.compare.activations import Activations
from lmzoo.compare.figure import Figure
from lmzoo.compare.figures_of_activations import DASHES, PALEST, activation_figures, ticks
from lmzoo.roles import ROLES
from tests.compare.example import LOGGED

COLORS = {"gpt2.tiny": 0, "mamba.tiny": 2}


def by_name(activations: Activations) -> dict[str, Figure]:
    return {figure.name: figure for figure in activation_figures(activations, COLORS)}


def test_activation_figures_are_those_that_the_logs_allow() -> None:
    alone = ["activations-1", "activations-2", "gradients-1"]
    assert list(by_name(LOGGED)) == ["largest-logit", "state-norm", "router-load", *alone]
    assert by_name(Activations()) == {}
    assert list(by_name(Activations(state_norm=LOGGED.state_norm))) == ["state-norm"]


@pytest.mark.parametrize(
    ("name", "value", "over"), [("largest-logit", "logit", "tokens"), ("state-norm", "norm", "position")]
)
def test_figures_of_all_models_draw_a_line_for_each_on_a_logarithmic_axis(name: str, value: str, over: str) -> None:
    figure = by_name(LOGGED)[name]
    spec, (axis,) = figure.spec, figure.axes
    models = list(figure.models)
    assert {row["model"] for row in spec["data"]["values"]} == set(models)
    assert [spec["encoding"]["color"]["scale"][key] for key in ("domain", "range")] == [
        list(COLORS),
        ["var(--s0)", "var(--s2)"],
    ]
    values = [row[value] for row in spec["data"]["values"]]
    y = spec["encoding"]["y"]
    assert (y["field"], y["scale"]["type"], axis.field) == (value, "log", over)
    low, high = y["scale"]["domain"]
    assert low < min(values)
    assert max(values) < high
    assert set(LOGGED.largest_logit) == {"gpt2.tiny", "mamba.tiny"}
    assert list(by_name(LOGGED)["state-norm"].models) == ["mamba.tiny"]


def test_figures_over_training_begin_at_no_tokens_and_end_with_the_last_ones() -> None:
    figures = by_name(LOGGED)
    for name in ("largest-logit", "router-load", "activations-1", "activations-2", "gradients-1"):
        assert figures[name].spec["encoding"]["x"]["scale"]["domain"] == [0, 2000]
    assert figures["state-norm"].drawn(figures["state-norm"].axes[0])["encoding"]["x"]["scale"]["type"] == "log"


def test_router_load_is_a_band_around_the_even_share() -> None:
    figure = by_name(LOGGED)["router-load"]
    band, least, most, dots, share = figure.spec["layer"]
    ends = [layer["encoding"]["y"]["field"] for layer in (band, least, most)]
    assert (band["mark"]["type"], band["encoding"]["y2"]["field"], ends) == ("area", "most", ["least", "least", "most"])
    assert share["data"]["values"] == [{"share": 1}]
    shown: list[dict[str, Any]] = dots["encoding"]["tooltip"]
    assert {line["field"] for line in shown} <= {*figure.spec["data"]["values"][0]}
    titles = [line["title"] for line in shown]
    assert len(set(titles)) == len(titles), "of two lines with one title, a tooltip shows the last one"
    assert band["encoding"]["y"]["scale"]["domain"] == [0, pytest.approx(1.05 * 2.5)]


def test_residual_rms_draws_models_with_the_same_axes_and_their_colors() -> None:
    blocks = {
        name: [{"tokens": n, "block": b, "rms": n + b} for n in (1, 2) for b in range(3)]
        for name in ("gpt2.tiny", "mamba.tiny")
    }
    blocks["gpt2.tiny"].append({"tokens": 8, "block": 0, "rms": 40.0})
    figures = activation_figures(Activations(residual_rms=blocks), COLORS)
    assert [(figure.name, list(figure.models)) for figure in figures] == [
        ("activations-1", ["gpt2.tiny"]),
        ("activations-2", ["mamba.tiny"]),
    ]
    one, two = (figure.spec["encoding"] for figure in figures)
    assert one["x"]["scale"]["domain"] == two["x"]["scale"]["domain"] == [0, 8]
    assert one["y"] == two["y"]
    low, high = one["y"]["scale"]["domain"]
    assert low < 1 < 40 < high
    assert (one["color"], two["color"]) == ({"value": "var(--s0)"}, {"value": "var(--s2)"})
    assert one["opacity"]["scale"] == {"domain": [0, 2], "range": [PALEST, 1]}


def test_grad_norms_draw_a_dash_for_each_role_that_any_model_has() -> None:
    norms = {
        "gpt2.tiny": [{"tokens": n, "role": role, "norm": n / 4} for n in (1, 2) for role in ("matrix", "vector")],
        "mamba.tiny": [{"tokens": n, "role": "head", "norm": 8.0} for n in (1, 4)],
    }
    figures = activation_figures(Activations(grad_norms=norms), COLORS)
    assert [(figure.name, list(figure.models)) for figure in figures] == [
        ("gradients-1", ["gpt2.tiny"]),
        ("gradients-2", ["mamba.tiny"]),
    ]
    one, two = (figure.spec["encoding"] for figure in figures)
    assert (one["x"], one["y"], one["strokeDash"]) == (two["x"], two["y"], two["strokeDash"])
    assert one["strokeDash"]["scale"]["domain"] == ["matrix", "head", "vector"]
    assert one["y"]["scale"]["domain"] == [pytest.approx(0.25 / 1.15), pytest.approx(8 * 1.15)]
    assert (one["color"], two["color"]) == ({"value": "var(--s0)"}, {"value": "var(--s2)"})
    assert set(DASHES) == set(ROLES) - {"constant"}
    assert len(set(map(tuple, DASHES.values()))) == len(DASHES)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.04, 4.6, [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]),
        (0.3, 900.0, [1.0, 10.0, 100.0]),
        (1.0, 1.5, [1.0]),
    ],
)
def test_ticks_are_powers_of_ten_and_their_multiples(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == found
