"""Tests the chart: labels that do not overlap, round ticks, and the range of losses."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from lmzoo.compare.chart import LINE_HEIGHT, Line, loss_chart, loss_range, spread, ticks


def test_spread_moves_labels_as_little_as_needed() -> None:
    assert spread([10, 50, 90], 17, 0, 100) == [10, 50, 90]
    assert spread([50, 50], 10, 0, 100) == [45, 55]
    assert spread([50, 52, 48], 10, 0, 100) == [50, 60, 40]  # in the order of the wanted places
    assert spread([99, 100], 10, 0, 100) == [90, 100]  # kept inside
    assert spread([0, 1, 30], 10, 0, 100) == [0, 10, 30]
    assert spread([20, 20, 34], 10, 0, 100) == [
        pytest.approx(44 / 3 - 0),
        pytest.approx(74 / 3),
        pytest.approx(104 / 3),
    ]
    assert spread([], 10, 0, 100) == []


def test_spread_never_lets_labels_overlap_if_they_fit() -> None:
    rng = random.Random(0)
    for _ in range(200):
        n = rng.randint(1, 10)
        wanted = [rng.uniform(0, 200) for _ in range(n)]
        places = spread(wanted, 17, 0, 200)
        order = sorted(range(n), key=lambda i: wanted[i])
        gaps = [places[b] - places[a] for a, b in pairwise(order)]
        assert all(gap >= 17 - 1e-9 for gap in gaps)
        assert min(places) >= 0
        assert max(places) <= 200 + 1e-9


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (1.6, 3.4, [2.0, 2.5, 3.0]),
        (0, 1_536_000, [0, 500_000, 1_000_000, 1_500_000]),
        (1.41, 1.49, [1.42, 1.44, 1.46, 1.48]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(wanted)


def test_ticks_are_few_at_any_scale() -> None:
    for scale in (1e-4, 0.3, 1, 7, 3e5, 1e9):
        for at_most in range(2, 9):
            found = ticks(1.3 * scale, 4.9 * scale, at_most)
            assert 1 <= len(found) <= at_most
            assert all(1.3 * scale <= tick <= 4.9 * scale for tick in found)


def test_loss_range_leaves_out_the_first_fall_of_the_loss() -> None:
    curves = [[[0, 4.17], [10, 2.0], [20, 1.8]], [[0, 4.17], [10, 3.0], [20, 2.5]]]
    low, high = loss_range(curves, [3.3, 1.9])
    assert 1.6 < low < 1.8
    assert 3.0 < high < 3.3
    assert loss_range([[[0, 4.0], [1, 3.9], [2, 3.8]]], [3.3])[1] > 3.8  # a model worse than the unigram is still shown


def test_loss_chart_is_valid_svg_with_all_labels() -> None:
    lines = [
        Line("a<b", 0, [[0, 4.0], [500, 2.0], [1000, 1.75]]),
        Line("wild", 9, [[0, 4.0], [500, 3.0]], diverged=True),
    ]
    text = loss_chart(lines, [("3-gram", 1.9)], width=700, height=400)
    root = ET.fromstring(text)
    assert [node.text for node in root.iter("text") if "name" in node.get("class", "")] == ["a<b 1.75", "wild ✕"]
    assert "3-gram 1.90" in [node.text for node in root.iter("text")]
    curves = [node for node in root.iter("polyline") if node.get("clip-path")]
    assert [node.get("class") for node in curves] == ["s0", "s1 dashed"]
    assert len(curves[0].get("points", "").split()) == 3
    xs = [float(x) for x in re.findall(r' x="([\d.]+)"', text)]
    assert max(xs) < 700


def test_loss_chart_labels_stand_apart_in_the_right_margin() -> None:
    lines = [Line(f"model{n}", n, [[0, 4.0], [500, 2.0], [1000, 1.7 + n / 100]]) for n in range(4)]
    references = [(f"{n}-gram", loss) for n, loss in enumerate([3.3, 2.4, 1.9, 1.75, 1.67, 1.7], start=1)]
    root = ET.fromstring(loss_chart(lines, references, width=700, height=400))
    labels = [node for node in root.iter("text") if node.get("class", "").split()[0] in ("name", "reference")]
    shown = [name for name, _ in references[2:]]  # the others are above the range
    assert sorted(node.text.split()[0] for node in labels) == sorted([line.name for line in lines] + shown)
    axis = next(node for node in root.iter("line") if node.get("class") == "axis")
    assert all(float(node.get("x")) > float(axis.get("x2")) for node in labels)
    heights = sorted(float(node.get("y")) for node in labels)
    assert all(b - a >= LINE_HEIGHT - 0.11 for a, b in pairwise(heights)), "written with one decimal"
    assert len([node for node in root.iter("line") if node.get("class") == "reference"]) == len(shown)


def test_loss_chart_draws_a_single_point() -> None:
    ET.fromstring(loss_chart([Line("a", 0, [[100, 2.0]])], [], width=366, height=380))
