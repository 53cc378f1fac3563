"""Attention with changed scores: all queries at once against the definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.attention import naive_attention
from lmzoo.ops.scored_attention import alibi_slopes, naive_scored_attention, scored_attention
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, S: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns queries, keys, values, slopes and sinks: 6 query heads, 3 key/value heads of width 4."""
    draw = torch.Generator().manual_seed(100 * T + S)
    shapes = [(2, T, 6, 4), (2, S, 3, 4), (2, S, 3, 4), (6,), (6,)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@each_case("T, S", [(1, 1), (5, 5), (1, 5), (3, 8)])
@each_case("window", [None, 1, 3])
@each_case("cap", [None, 0.7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_scored_attention_equals_naive(
    T: int, S: int, window: int | None, cap: float | None, dtype: torch.dtype, tolerance: float
) -> None:
    fast, naive = (
        values_and_gradients(
            lambda q, k, v, slopes, sinks, form=form: (
                form(q, k, v, window=window, cap=cap, slopes_H=slopes, sinks_H=sinks),
            ),
            make_inputs(T, S, dtype),
        )
        for form in (scored_attention, naive_scored_attention)
    )
    assert_same(fast, naive, tolerance)


@pytest.mark.parametrize("form", [scored_attention, naive_scored_attention])
@each_case("window", [None, 2])
def test_scored_attention_without_changes_is_attention(form: type, window: int | None) -> None:
    q, k, v, _, _ = make_inputs(4, 7)
    expected = naive_attention(q, k, v, window=window)
    torch.testing.assert_close(form(q, k, v, window=window), expected)
    nothing = {"cap": 1e9, "slopes_H": torch.zeros(6).double(), "sinks_H": torch.full((6,), -1e4).double()}
    torch.testing.assert_close(form(q, k, v, window=window, **nothing), expected, atol=1e-6, rtol=0)


def test_scored_attention_with_extreme_values_is_finite() -> None:
    """A sink that takes all weight, one that takes none, a slope that leaves the present token alone, a small cap."""
    q, k, v, _, _ = make_inputs(4, 4, torch.float32)
    slopes, sinks = torch.tensor([1e4, 0, 0, 0, 0, 0]), torch.tensor([-1e4, 1e4, 0, 0, 0, 0])
    y, *gradients = values_and_gradients(
        lambda q, k, v, slopes, sinks: (scored_attention(q, k, v, cap=1e-3, slopes_H=slopes, sinks_H=sinks),),
        [1e3 * q, k, v, slopes, sinks],
    )
    assert all(x.isfinite().all() for x in (y, *gradients))
    torch.testing.assert_close(y[:, :, 0], v[:, :, 0])
    assert (y[:, :, 1] == 0).all()


def test_scored_attention_dropout_drops_weights() -> None:
    q, k, _, _, _ = make_inputs(6, 6, torch.float32)
    torch.manual_seed(0)
    y = scored_attention(q, k, torch.ones_like(k), dropout=0.5)
    assert (y[:, 0].unique() == torch.tensor([0.0, 2.0])).all(), "a single weight of 1 is dropped or doubled"


def test_alibi_slopes_are_geometric_for_powers_of_two_and_interleaved_for_others() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(1) == [2.0**-8]
    assert alibi_slopes(6) == [2.0**-i for i in (2, 4, 6, 8, 1, 3)]
