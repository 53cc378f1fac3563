"""Tests the views of layers: a map for each head, a strip for each kind of value, the experts of each token."""

from __future__ import annotations

import base64
import re
import sys

import pytest
import torch

from lmzoo.inspect.page_of_layers import layer_figures, layer_numbers
from lmzoo.inspect.recording import kind_of
from tests.compare.test_report import read
from tests.inspect.test_images import decoded
from tests.inspect.texts import inspected

module = sys.modules["lmzoo.inspect.page_of_layers"]


# One of each kind of value, and those that are named in another way: several times, or on chunks.
FAMILIES = ("bigram", "diff", "gpt2", "gru", "hnet", "hyper", "looped", "mixtral", "sparse", "ttt")


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_figures_of_any_family_are_html(family: str) -> None:
    found = inspected(family, "abc abc")
    read(layer_figures(found))
    for layer in layer_numbers(found):
        assert len(layer["values"]) == 7


def pixels(figures: str, selector: str) -> list[list[list[int]]]:
    images = re.findall(rf'class="{selector}"[^>]*src="data:image/png;base64,([\w+/=]*)"', figures)
    return [decoded(base64.b64decode(image))[1] for image in images]


def test_layer_figures_have_a_map_for_each_head() -> None:
    found = inspected("gpt2", "abc abc")
    figures = layer_figures(found)
    weights = {name: value[0] for name, value in found.recording.items() if kind_of(name) == "attention.weights"}
    maps = iter(pixels(figures, "map"))
    for weights_THS in weights.values():
        for weights_TS in weights_THS.unbind(1):
            full = float(weights_TS.max())
            assert next(maps) == (255 * (weights_TS.double() / full).sqrt()).round().int().tolist()
    assert next(maps, None) is None
    assert figures.count("<details") == len(weights)
    assert f'data-full="{full:.4g}"' in figures
    assert "blocks.1.attention.weights" in figures


def test_layer_figures_leave_out_maps_beyond_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    found = inspected("gpt2", "abc abc")
    heads = found.recording["blocks.0.attention.weights"].shape[2]
    monkeypatch.setattr(module, "MOST_MAPS", heads)
    figures = layer_figures(found)
    assert len(pixels(figures, "map")) == heads
    assert f"The maps of {heads} more heads are left out." in figures


def test_layer_figures_have_a_row_of_each_block_in_a_strip() -> None:
    found = inspected("mamba", "abc abc")
    figures = layer_figures(found)
    strips = pixels(figures, "strip-map")
    titles = re.findall(r"<h3>(.*?)</h3>", figures)
    assert len(strips) == len(titles) == 5
    decay_LT = torch.stack([value[0] for name, value in found.recording.items() if kind_of(name) == "gates.decay"])
    low, high = float(decay_LT.min()), float(decay_LT.max())
    assert strips[0] == (255 * ((decay_LT - low) / (high - low)).sqrt()).round().int().tolist()
    assert f"From {low:.3g} (no color) to {high:.3g}" in figures
    norms = strips[titles.index("Norm of the state")]
    assert [max(row) for row in norms] == [255] * len(norms), "each row has its own full color"
    assert len(re.findall(r"<li>(\d)</li>", figures)) == 5 * len(norms)


def test_layer_figures_show_the_experts_of_each_token() -> None:
    found = inspected("mixtral", "abc ab")
    figures = layer_figures(found)
    chosen = [value[0].tolist() for name, value in found.recording.items() if kind_of(name) == "router.chosen"]
    columns = re.findall(r"<li><b>(.*?)</b>(.*?)</li>", figures)
    assert [token for token, _ in columns] == ["a", "b", "c", "␣", "a", "b"]
    for place, (_, cells) in enumerate(columns):
        assert re.findall(r">([\d ]+)<", cells) == [" ".join(map(str, router[place])) for router in chosen]
        hues = [round(360 * router[place][0] / (1 + max(map(max, router)))) for router in chosen]
        assert re.findall(r"--hue:(\d+)", cells) == [*map(str, hues)]


def test_layer_numbers_are_named_by_block() -> None:
    found = inspected("mixtral", "abc ab")
    numbers = {layer["name"]: layer["values"] for layer in layer_numbers(found)}
    assert {"0.features.rms", "1.router.chosen"} <= numbers.keys()
    assert numbers["0.features.rms"] == pytest.approx(found.recording["blocks.0.features.rms"][0].tolist(), rel=1e-3)
    assert numbers["1.router.chosen"][0] == " ".join(map(str, found.recording["blocks.1.router.chosen"][0, 0].tolist()))
    assert layer_figures(inspected("bigram", "abc")) == ""
