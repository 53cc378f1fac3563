"""Tests the parts of a figure: its axes, colors, and the line of the best n-gram."""

from __future__ import annotations

from lmzoo.compare.figure import N_COLORS, Axis, Figure, color, model_channels, reference_layers, tooltip

LINEAR, LOG = Axis("tokens", "tokens", "tokens seen"), Axis("time", "seconds", "seconds", log=True)


def figure() -> Figure:
    spec = {"encoding": {"x": {"type": "quantitative", "scale": {"zero": False}}}, "layer": []}
    return Figure("f", "a description", spec, [LINEAR, LOG])


def test_drawn_sets_the_axis_and_leaves_the_figure_unchanged() -> None:
    one = figure()
    spec = one.drawn(LOG)
    assert spec["encoding"]["x"] == {
        "type": "quantitative",
        "field": "seconds",
        "title": "seconds",
        "scale": {"type": "log"},  # Vega-Lite warns of `zero` on a logarithmic axis
    }
    assert spec["params"] == [{"name": "axis", "value": "seconds"}, {"name": "log", "value": True}]
    assert spec["description"] == "a description"
    assert one.spec == figure().spec
    assert one.drawn(LINEAR)["encoding"]["x"]["scale"] == {"type": "linear", "zero": False}


def test_model_channels_repeat_colors_with_dashes() -> None:
    few = model_channels({f"m{i}": i for i in range(N_COLORS)})
    assert "strokeDash" not in few
    many = model_channels({f"m{i}": i for i in range(N_COLORS + 1)})
    assert many["color"]["scale"]["range"][0] == many["color"]["scale"]["range"][N_COLORS] == color(0) == "var(--s0)"
    dashes = many["strokeDash"]["scale"]["range"]
    assert dashes[0] == [1, 0] != dashes[N_COLORS]


def test_reference_layers_hold_the_loss_on_their_axis() -> None:
    for channel, other in (("x", "y"), ("y", "x")):
        line, text = reference_layers("3-gram", 1.7, channel)
        assert line["data"]["values"] == [{"loss": 1.7, "text": "3-gram 1.70"}]
        assert line["encoding"][other] is None
        assert text["encoding"][other] == {"value": 0}


def test_tooltip_formats_numbers_only() -> None:
    assert tooltip(("model", "model", ""), ("loss", "loss", ".3f")) == [
        {"field": "model", "title": "model", "type": "nominal"},
        {"field": "loss", "title": "loss", "type": "quantitative", "format": ".3f"},
    ]
