"""Tests of `lmzoo.drawing.tree`: costs add up at every level, and the tree is JSON."""

from __future__ import annotations

import json

import pytest

from lmzoo.drawing import draw
from lmzoo.drawing.tree import Box, Cost, Node, Repeat, each_run, own_cost
from tests.cases import each_case
from tests.drawing.models import (
    MODELS,
    make,
    nodes_of,
    words,
)


def test_cost_adds_and_multiplies() -> None:
    assert Cost(1, 2.0, 3) + Cost(10, 20.0, 30) * 2 - Cost(1, 1.0, 1) == Cost(20, 41.0, 62)


def boxes_cost(node: Node) -> Cost:
    """The sum over the boxes, times their repetitions; a box with parts adds only the costs outside its parts."""
    if not node.parts:
        return node.cost
    inner = sum((boxes_cost(part) for part in node.parts), Cost())
    if isinstance(node, Repeat):
        return each_run(inner, node.calls) * node.times
    return inner + own_cost(node) if isinstance(node, Box) else inner


@each_case("name", [*MODELS, "mmam x 10", "p x 3", "aw x 4"])
def test_draw_sums_at_every_level(name: str) -> None:
    pattern, _, n_layers = name.partition(" x ")
    drawing = draw(words(pattern, int(n_layers)) if n_layers else make(name), T=24)
    assert drawing.T == 24
    for node in nodes_of(drawing.model):
        if isinstance(node, Box):
            assert own_cost(node).params >= 0
            assert own_cost(node).state_bytes >= 0
        else:
            assert own_cost(node) == Cost(), "what holds parts together costs nothing itself"
    exact = boxes_cost(drawing.model)
    assert (exact.params, exact.state_bytes) == (drawing.model.cost.params, drawing.model.cost.state_bytes)
    assert exact.flops == pytest.approx(drawing.model.cost.flops, rel=1e-12)


def test_drawing_as_a_dict_is_json_with_types() -> None:
    found = json.loads(json.dumps(draw(words("mp", 2)).to_dict()))
    first, second = (part["parts"][0] for part in found["model"]["parts"][1:3])
    assert (first["type"], second["type"]) == ("chain", "fork")
    assert first["parts"][0]["type"] == "branch"
    assert first["parts"][0]["inner"]["title"] == "Mamba"
    assert first["parts"][0]["inner"]["cost"]["params"] > 0
    assert found["model"]["parts"][1]["type"] == "repeat"
