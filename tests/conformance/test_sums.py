"""Tests which parts of a state count as sums over many tokens, and which may have 16 bits."""

from __future__ import annotations

import importlib

import pytest

from lmzoo.conformance import subject
from lmzoo.conformance.report import Fault
from lmzoo.conformance.sums import require_wide_sums


def require_wide(module: str) -> None:
    require_wide_sums(subject(importlib.import_module(f"tests.museum.{module}").MODEL))


@pytest.mark.parametrize(
    ("exhibit", "where", "kind"),
    [
        ("sum_in_sixteen_bits", "in a copy with weights in bfloat16", "a sum over all tokens"),
        ("sum_rounded_by_autocast", "under autocast", "a sum over all tokens"),
        ("decaying_memory_in_sixteen_bits", "in a copy with weights in bfloat16", "a sum over many tokens"),
    ],
)
def test_require_wide_sums_names_where_and_what(exhibit: str, where: str, kind: str) -> None:
    with pytest.raises(Fault, match=f"^{where}.*{kind}.*wide_dtype"):
        require_wide(f"exhibits.{exhibit}")


@pytest.mark.parametrize("name", ["lstm_of_torch", "scan_by_doubling", "decaying_memory", "mean_of_the_past"])
def test_require_wide_sums_leaves_cells_and_wide_sums_alone(name: str) -> None:
    require_wide(f"sound.{name}")
