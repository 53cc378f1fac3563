"""Tests of attention: the fused form against the definition, and the definition against explicit sums over keys."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmzoo.ops.attention import causal_attention, fused_attention, naive_attention, single_query_attention
from lmzoo.ops.counting import FlopCounter
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, S: int, H: int = 4, G: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(100 * T + S)
    shapes = [(2, T, H, 8), (2, S, G, 8), (2, S, G, 8)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@each_case("T, S", [(1, 1), (2, 2), (5, 5), (1, 5), (2, 8), (4, 5)])
@each_case("window", [None, 1, 2, 5, 6])
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 1), (4, 2), (8, 4), (16, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_causal_attention_equals_naive(
    T: int, S: int, window: int | None, H: int, G: int, dtype: torch.dtype, tolerance: float
) -> None:
    if T == 1 and window is not None:
        S = min(S, window)  # one query: the caller has cut the keys already
    inputs = make_inputs(T, S, H, G, dtype)
    fused, naive = (
        values_and_gradients(lambda *x, attend=attend: (attend(*x, window=window),), inputs)
        for attend in (causal_attention, naive_attention)
    )
    assert_same(fused, naive, tolerance)


@each_case("S", [1, 5, 9])
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 1), (8, 4)])
def test_single_query_attention_equals_naive(S: int, H: int, G: int) -> None:
    inputs = make_inputs(1, S, H, G, torch.float32)
    torch.testing.assert_close(single_query_attention(*inputs), naive_attention(*inputs), rtol=1e-5, atol=1e-6)


@each_case("window", [None, 1, 3])
def test_naive_attention_equals_explicit_sums(window: int | None) -> None:
    """Loops over single queries, heads and keys, in Python numbers."""
    T, S, H, G = 3, 5, 4, 2
    q, k, v = make_inputs(T, S, H, G)
    y = naive_attention(q, k, v, window=window)
    for b, t, h in [(b, t, h) for b in range(2) for t in range(T) for h in range(H)]:
        now, group = S - T + t, h // 2
        keys = [s for s in range(S) if s <= now and (window is None or s > now - window)]
        weights = [math.exp(float(q[b, t, h] @ k[b, s, group]) / math.sqrt(8)) for s in keys]
        expected = sum(w * v[b, s, group] for w, s in zip(weights, keys, strict=True)) / sum(weights)
        torch.testing.assert_close(y[b, t, h], expected)


def test_causal_attention_dropout_drops_weights() -> None:
    q, k, _ = make_inputs(6, 6, dtype=torch.float32)
    v = torch.ones_like(k)  # without dropout each output is a mean of ones
    torch.testing.assert_close(causal_attention(q, k, v), torch.ones_like(q))
    torch.manual_seed(0)
    y = causal_attention(q, k, v, dropout=0.5)
    assert y[:, 0].unique().tolist() == [0, 2], "the first query has one key: it is dropped, or scaled up"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
@each_case("T, S", [(1, 6), (6, 6), (2, 6)])
def test_causal_attention_takes_values_of_another_width(T: int, S: int, dtype: torch.dtype, tolerance: float) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, *shape, generator=draw).to(dtype) for shape in ((T, 4, 8), (S, 2, 8), (S, 2, 5)))
    y_BTHV = causal_attention(q, k, v)
    assert y_BTHV.shape == (2, T, 4, 5)
    torch.testing.assert_close(y_BTHV, naive_attention(q, k, v), atol=tolerance, rtol=tolerance)


@each_case("K, V", [(8, 8), (8, 5), (5, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_attention_takes_a_mask_and_any_widths(K: int, V: int, dtype: torch.dtype, tolerance: float) -> None:
    """Past 512 keys, where torch's kernel has several blocks of keys, and the first ones may be masked."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, *shape, generator=draw, dtype=torch.float64) for shape in ((4, 3, K), (2, 600, K))]
    inputs += [torch.randn(2, 2, 600, V, generator=draw, dtype=torch.float64)]
    mask_B1TS = torch.rand(2, 1, 3, 600, generator=draw) < 0.1
    mask_B1TS[:, :, 0, :-5] = False
    mask_B1TS[..., -1] = True

    def definition(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
        return [(q @ k.mT / math.sqrt(K)).masked_fill(~mask_B1TS, -math.inf).softmax(-1) @ v]

    inputs = [x.to(dtype) for x in inputs]
    fused = values_and_gradients(lambda *x: [fused_attention(*x, attn_mask=mask_B1TS)], inputs)
    assert_same(fused, values_and_gradients(definition, inputs), tolerance)


def test_fused_attention_is_computed_in_float32() -> None:
    q, k, v = (x.transpose(1, 2).bfloat16() for x in make_inputs(5, 5))
    with torch.autocast("cpu", torch.bfloat16):
        y = fused_attention(q, k, v, is_causal=True)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, fused_attention(q.float(), k.float(), v.float(), is_causal=True).bfloat16())


def test_fused_attention_counts_values_without_padding() -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
        fused_attention(torch.ones(2, 4, 3, 8), torch.ones(2, 2, 6, 8), torch.ones(2, 2, 6, 5))
    assert counter.get_total_flops() == 2 * 2 * 4 * 3 * 6 * (8 + 5)
