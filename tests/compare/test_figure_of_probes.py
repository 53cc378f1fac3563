"""Tests the heat map of a comparison: a field for each model, level and length."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lmzoo.compare.figure_of_probes import probes
from lmzoo.compare.report import html
from lmzoo.compare.svg import for_paper
from tests.compare.example import HOSTILE, everything, probed_example
from tests.compare.test_report import figure_data, read


def test_probes_has_a_field_for_each_model_level_and_length() -> None:
    figure = probes(probed_example())
    assert figure is not None
    rows: list[dict[str, Any]] = figure.spec["data"]["values"]
    assert len(rows) == 2 * 2 * 2
    found = {(row["model"], row["label"]): (row["share"], row["text"], row["solved"]) for row in rows}
    assert found["gpt2.tiny", "mqar easy, 32"] == (1.0, "1.00", True)
    assert found[HOSTILE, "mqar easy, 64"] == (pytest.approx((0.6 - 0.25) / 0.74), "0.60", False)
    assert rows[2]["accuracy"] == "1/2 0.985", "for the tooltip"
    assert found[HOSTILE, "parity easy, 16"] == (None, "✕", False)
    assert figure.drawn(figure.axes[0])["encoding"]["x"]["type"] == "nominal"
    assert "type" not in figure.drawn(figure.axes[0])["encoding"]["x"]["scale"]
    assert probes(everything()) is None


def test_probes_can_be_drawn_for_a_paper() -> None:
    vl_convert = pytest.importorskip("vl_convert")
    figure = probes(probed_example())
    assert figure is not None
    drawn = vl_convert.vegalite_to_svg(for_paper(figure.drawn(figure.axes[0]), figure))
    assert "mqar easy, 32" in drawn
    texts = re.findall(r"<text ([^>]*)>([^<]*)</text>", drawn)
    assert {text for style, text in texts if "bold" in style} == {"1.00"}, "solved"
    assert {"0.98", "0.52", "0.25", "0.60", "✕"} <= {text for style, text in texts if "bold" not in style}


def test_html_shows_the_probes() -> None:
    page = html(probed_example())
    assert figure_data(page)["probes"]["spec"]["data"]["values"]
    text = read(page).text
    assert "looks up several values by their keys (Arora et al. 2023, arXiv 2312.04927)" in text
    assert f"{HOSTILE} on parity easy diverged: the loss is nan" in text
    assert json.dumps(HOSTILE)[1:-1] not in page.partition("<script>")[0]
    assert "Probes" not in read(html(everything())).text
