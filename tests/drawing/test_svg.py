"""Tests of `lmzoo.drawing.svg`: every box of the tree is drawn, within the picture, none over another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

import lmzoo
from lmzoo.drawing import Drawing, draw, svg
from lmzoo.drawing.tree import TOKEN_IDS, Box, Cost, Node, Repeat
from tests.drawing.models import drawing_of, make, words

# A small form of each family, and presets with other patterns.
NAMES = [*lmzoo.list_models("*.tiny"), "deepseek.1m", "hybrid.1m", "gemma3.1m"]


def boxes(node: Node) -> Iterator[Box]:
    if isinstance(node, Box) and not node.parts:
        yield node
    for part in node.parts if not isinstance(node, Box) or node.parts else ():
        yield from boxes(part)


def root_of(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(svg(drawing))


def rectangles(
    element: ElementTree.Element, css: str, x: float = 0.0, y: float = 0.0
) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, right and bottom of the rectangles of some classes."""
    move = re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", ""))
    if move:
        x, y = x + float(move[1]), y + float(move[2])
    if element.tag.endswith("rect") and element.get("class", "") in css.split():
        left, top = x + float(element.get("x", 0)), y + float(element.get("y", 0))
        yield left, top, left + float(element.get("width", 0)), top + float(element.get("height", 0))
    for child in element:
        yield from rectangles(child, css, x, y)


@pytest.mark.parametrize("name", NAMES)
def test_svg_draws_every_box_inside_the_picture_and_apart(name: str) -> None:
    drawing = drawing_of(name)
    root = root_of(drawing)
    found = list(boxes(drawing.model))
    sheets = sum(2 for box in found if box.experts)
    places = list(rectangles(root, "plain product state"))
    assert len(places) == len(found) + sheets
    left, top, width, height = map(float, root.get("viewBox", "").split())
    for x1, y1, x2, y2 in [*places, *rectangles(root, "repeat frame")]:
        assert left <= x1 < x2 <= left + width
        assert top <= y1 < y2 <= top + height
    if not sheets:
        for number, (x1, y1, x2, y2) in enumerate(places):
            for u1, v1, u2, v2 in places[:number]:
                assert x2 <= u1 or u2 <= x1 or y2 <= v1 or v2 <= y1, "two boxes overlap"


def test_svg_draws_residuals_branches_repeats_and_experts() -> None:
    def count(drawing: Drawing, words: str) -> int:
        return svg(drawing).count(words)

    plain, parallel = draw(words("m", 3)), draw(words("p", 2))
    assert count(plain, 'class="plus"') == 2, "a block of two residual branches"
    assert count(parallel, 'class="plus"') == 1, "parallel branches are added at once"
    assert count(plain, ">3 ×<") == 1
    assert count(plain, 'rect class="repeat"') == sum(isinstance(part, Repeat) for part in plain.model.parts)
    with_experts, without = (count(drawing_of(name), 'rect class="product"') for name in ("mixtral.tiny", "llama.tiny"))
    assert with_experts == without + 2, "sheets behind the box of experts"


def test_svg_adds_layers_side_by_side_once_to_each_other_and_once_to_their_input() -> None:
    root = root_of(draw(words("b", 1)))
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 2
    tops = [top for _, top, _, _ in rectangles(root, "state product")]
    assert len({*tops}) == len(tops) - 1, "attention and MLP begin at the same height"


def test_svg_colors_boxes_by_what_they_cost() -> None:
    def box(name: str, cost: Cost) -> Box:
        return Box(name="", title=name, cost=cost)

    parts = (box("A", Cost(1, 2.0, 3)), box("B", Cost(1, 2.0)), box("C", Cost(1)))
    text = svg(Drawing(family="f", T=4, model=Box(name="", title="F", cost=Cost(), parts=parts)))
    assert re.findall(r'rect class="(\w+)"', text) == ["state", "product", "plain"]
    assert "<title>A: 1 parameters, 2 FLOPs per token, 3 bytes of state</title>" in text


def test_svg_joins_the_parts_of_a_model_but_not_the_token_ids() -> None:
    def box(title: str) -> Box:
        return Box(name="", title=title, cost=Cost())

    parts = (box("A"), box("B"), box(TOKEN_IDS))
    text = svg(Drawing(family="f", T=4, model=Box(name="", title="F", cost=Cost(), parts=parts)))
    assert text.count('class="wire"') == 1


def test_svg_escapes_names() -> None:
    box = Box(name="<a>", title='"B"', settings=("<script>",), cost=Cost())
    frame = Box(name="<c>", title="&", cost=Cost(), parts=(box,))
    text = svg(Drawing(family='"><script>', T=4, model=Box(name="", title="F", cost=Cost(), parts=(frame,))))
    texts = [element.text for element in ElementTree.fromstring(text).iter("text")]
    assert texts == ["<c>: &", '<a>: "B"', "<script>"]


def test_svg_has_one_shape_for_a_model_on_any_device() -> None:
    assert svg(draw(make("gpt2.tiny"))) == svg(drawing_of("gpt2.tiny"))
