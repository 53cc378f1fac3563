"""Tests of the dtype of states and other values that must not be rounded to bfloat16."""

from __future__ import annotations

import pytest
import torch

from lmzoo.layers.context import Context
from lmzoo.layers.gla import GLA
from lmzoo.ops.precision import wide, wide_dtype, without_autocast


@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_wide_is_float32_or_wider(narrow: torch.dtype, expected: torch.dtype) -> None:
    assert wide_dtype(narrow) == expected
    assert wide(torch.ones(2, dtype=narrow)).dtype == expected


def test_wide_copies_nothing_that_is_wide_already() -> None:
    x = torch.ones(2)
    assert wide(x) is x


def test_wide_dtype_of_none_is_the_default_dtype() -> None:
    assert wide_dtype(None) == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert wide_dtype(None) == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_wide_compiles_in_one_graph() -> None:
    compiled = torch.compile(lambda x: wide(x) * 2, fullgraph=True, backend="eager")
    assert compiled(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32


def test_without_autocast_keeps_the_dtype_of_products() -> None:
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32


def test_without_autocast_lets_models_be_measured_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer, x_BTD = GLA(8, 2), torch.empty(1, 5, 8)
    assert layer(x_BTD, None, Context(0, 5, x_BTD.device, x_BTD.dtype))[0].shape == x_BTD.shape
