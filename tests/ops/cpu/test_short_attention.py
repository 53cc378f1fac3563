"""Tests of attention by matrix products against its definition: values, gradients, masks, precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops import attention
from lmzoo.ops.attention import causal_attention, naive_attention
from lmzoo.ops.cpu import short_attention
from lmzoo.ops.cpu.short_attention import is_short
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients
from tests.ops.test_attention import make_inputs


@pytest.fixture
def always_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "is_short", lambda *_: True)
    monkeypatch.setattr(short_attention, "ROWS", 3)


@pytest.mark.usefixtures("always_short")
@each_case("T", [1, 2, 3, 7, 9])
@each_case("window", [None, 1, 2, 5])
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 1), (4, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_short_attention_equals_naive(
    T: int, window: int | None, H: int, G: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, T, H, G, dtype)
    short, naive = (
        values_and_gradients(lambda *x, attend=attend: (attend(*x, window=window),), inputs)
        for attend in (causal_attention, naive_attention)
    )
    assert_same(short, naive, tolerance)


@pytest.mark.usefixtures("always_short")
def test_short_attention_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(4, 4)]
    assert torch.autograd.gradcheck(causal_attention, inputs)


def test_short_attention_in_bfloat16_is_as_exact_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores are so large that rounding them to bfloat16 would increase the error several times."""
    inputs = [2 * x.bfloat16() for x in make_inputs(32, 32)]
    exact = values_and_gradients(lambda *x: (naive_attention(*x),), [x.double() for x in inputs])

    def off() -> Tensor:
        rounded = values_and_gradients(lambda *x: (causal_attention(*x),), inputs)
        return torch.stack([(a - b).norm() / b.norm() for a, b in zip(rounded, exact, strict=True)])

    assert is_short(*inputs[:2])
    ours = off()
    monkeypatch.setattr(attention, "is_short", lambda *_: False)
    assert (ours < 1.5 * off()).all()


@pytest.mark.usefixtures("always_short")
def test_short_attention_gradcheck_with_dropout() -> None:
    """Forward and backward drop the same weights; every call here draws the same mask."""

    def attend(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        return causal_attention(*inputs, dropout=0.4)

    assert torch.autograd.gradcheck(attend, [x.requires_grad_() for x in make_inputs(4, 4)])


@pytest.mark.usefixtures("always_short")
def test_short_attention_dropout_drops_weights_and_scales_the_others() -> None:
    q, k, _ = make_inputs(6, 6, dtype=torch.float32)
    torch.manual_seed(0)
    y = causal_attention(q, k, torch.ones_like(k), dropout=0.5)
    assert y[:, 0].unique().tolist() == [0, 2], "the first query has one key: it is dropped, or scaled up"
    assert 0.5 < y.mean() < 1.5


def test_short_attention_under_autocast_keeps_exact_scores() -> None:
    inputs = [2 * x.bfloat16() for x in make_inputs(32, 32)]
    without = values_and_gradients(lambda *x: (causal_attention(*x),), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(values_and_gradients(lambda *x: (causal_attention(*x),), inputs), without, 0.0)


@pytest.mark.parametrize(
    ("T", "S", "dtype", "short"),
    [
        (32, 32, torch.bfloat16, True),
        (33, 33, torch.bfloat16, False),  # longer than four head widths
        (1, 1, torch.bfloat16, False),
        (4, 8, torch.bfloat16, False),  # keys from before
        (32, 32, torch.float32, False),
    ],
)
def test_is_short_selects_sizes_and_dtypes(T: int, S: int, dtype: torch.dtype, short: bool) -> None:
    q, k, _ = make_inputs(T, S, dtype=dtype)
    assert is_short(q, k) == short
