"""Tests of `lmzoo.gallery.states`: bars to scale."""

from __future__ import annotations

import re

import pytest

from lmzoo.gallery.states import LEFT, RIGHT, WIDTH, state_svg


def widths(text: str, css: str) -> list[float]:
    return [float(width) for width in re.findall(rf'rect class="{css}"[^>]* width="(\S+?)"', text)]


def test_state_svg_draws_both_models_to_one_scale() -> None:
    text = state_svg({64: 1000, 128: 2000}, "other.1m", {64: 4000, 128: 8000})
    assert widths(text, "beside")[1] == pytest.approx(WIDTH - LEFT - RIGHT, rel=1e-3)
    assert widths(text, "bar") == pytest.approx([width / 4 for width in widths(text, "beside")], rel=1e-3)
    assert text.count("other.1m: ") == 1
    assert "2.00 kB" in text


def test_state_svg_draws_no_bar_for_no_state_and_a_thin_one_for_few_bytes() -> None:
    assert widths(state_svg({64: 0, 128: 0}), "bar") == [0.0, 0.0]
    assert widths(state_svg({64: 1, 128: 10**9}), "bar")[0] == 1.0


def test_state_svg_escapes_a_name() -> None:
    assert "<b>" not in state_svg({64: 1}, "<b>", {64: 2})
