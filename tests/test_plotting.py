"""Tests of tables and plots, with stand-ins for the optional libraries."""

from __future__ import annotations

import sys

import pytest

from lmzoo import plotting
from lmzoo.errors import InputError
from tests import stand_ins


def test_frame_and_curves_pass_their_values_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(monkeypatch)
    assert plotting.frame([{"a": 1}]).rows == [{"a": 1}]
    axes = plotting.curves({"a": [(1, 2.0), (3, 4.0)], "empty": []}, x="tokens", y="loss")
    assert (axes.curves, axes.labels) == ({"a": [(1, 2.0), (3, 4.0)]}, ["tokens", "loss"])
    assert plotting.curves({}, x="tokens", y="loss", ax=axes) is axes


def test_frame_and_curves_name_the_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(InputError, match=r"^to_frame\(\) needs pandas: pip install pandas, or '.\[plot\]'"):
        plotting.frame([])
    with pytest.raises(InputError, match=r"^plot\(\) needs matplotlib: pip install matplotlib"):
        plotting.curves({}, x="tokens", y="loss")
