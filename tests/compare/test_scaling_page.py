"""Tests the page of a comparison at several sizes: its figure, its words, and that names are escaped."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from lmzoo.compare.scaling import Crossing, fit_curve
from lmzoo.compare.scaling_page import draw, html
from lmzoo.compare.series import Point, Scaling
from tests.compare.example import HOSTILE

SIZES = (1e5, 3e5, 1e6)
FLOPS = (1e12, 3e12, 1e13)
LOSSES = {"gpt2": [2.2, 2.0, 1.8], HOSTILE: [2.1, 2.0, 1.9]}


def scaling(seeds: int = 3) -> Scaling:
    found = Scaling(sizes=SIZES)
    for name, means in LOSSES.items():
        losses = [[mean + 0.01 * seed for seed in range(seeds)] for mean in means]
        found.points[name] = [
            Point(size=size, params=round(size) + 7, flops=flops, losses=each)
            for size, flops, each in zip(SIZES, FLOPS, losses, strict=True)
        ]
        found.curves[name] = fit_curve(FLOPS, losses)
    found.points["bigram"] = [Point(size=size, params=9000, flops=0.0, losses=[2.5]) for size in SIZES]
    found.problems["bigram"] = "has the same training FLOPs at several sizes"
    crossing = Crossing(below=HOSTILE, above="gpt2", flops=3e12, share=1.0, interval=(2e12, 4e12))
    found.crossings.append(crossing)
    return found


@pytest.mark.parametrize("seeds", [1, 3])
def test_draw_shows_losses_and_curves_within_the_measured_range(seeds: int) -> None:
    made = scaling(seeds)
    figure = draw(made, {name: number for number, name in enumerate(made.points)})
    assert figure is not None
    assert list(figure.models) == ["gpt2", HOSTILE], "a model without FLOPs has no place on the axis"
    kinds = [layer["mark"]["type"] for layer in figure.spec["layer"]]
    assert kinds == [*(["area"] if seeds > 1 else []), "line", "point", "point", "rule"]
    (row,) = (row for row in figure.spec["data"]["values"] if (row["model"], row["flops"]) == ("gpt2", 3e12))
    assert (row["loss"], row["params"]) == (pytest.approx(2.0 + 0.01 * (seeds - 1) / 2), 300_007)
    line, dots, _, rule = figure.spec["layer"][-4:]
    assert len(dots["data"]["values"]) == 2 * 3 * seeds
    own = [row for row in line["data"]["values"] if row["model"] == "gpt2"]
    assert (own[0]["flops"], own[-1]["flops"]) == (pytest.approx(1e12), pytest.approx(1e13))
    expected = made.curves["gpt2"].loss(np.array([row["flops"] for row in own]))
    assert [row["loss"] for row in own] == pytest.approx(expected.tolist())
    assert all(row["low"] <= row["high"] for row in own if "low" in row)
    assert ("low" in own[0]) == (seeds > 1)
    assert rule["data"]["values"] == [{"flops": 3e12}]


def test_html_has_the_figure_the_table_and_the_reports() -> None:
    page = html(scaling())
    assert "<title>3 language models at 3 sizes</title>" in page
    assert HOSTILE not in page
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert list(json.loads(data)) == ["scaling"]
    assert 'href="params=100000/report.html">100 k parameters</a>' in page
    assert "gpt2 above." in page
    assert "bigram has the same training FLOPs at several sizes, so it has no curve" in page


def test_html_without_any_loss_has_no_figure() -> None:
    points = {"gpt2": [Point(size=size, params=9, flops=1e12, losses=[]) for size in SIZES]}
    page = html(dataclasses.replace(scaling(), points=points, curves={}, crossings=[]))
    assert "data-figure" not in page
    assert "<script" not in page
