"""Tests log-linear attention in chunks against its definition, and both against the sum over all pairs of tokens, the
naive form of flash-linear-attention, and linear attention with a decay.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.gated_linear_attention import naive_gated_linear_attention
from lmzoo.ops.log_linear_attention import CHUNK_LENGTH as C
from lmzoo.ops.log_linear_attention import (
    SHORTEST_CHUNKED,
    chunked_log_linear_attention,
    count_levels,
    log_linear_attention,
    naive_log_linear_attention,
)
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

BOTH = pytest.mark.parametrize("attention", [naive_log_linear_attention, chunked_log_linear_attention])
LENGTHS = (1, 2, SHORTEST_CHUNKED - 1, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C, 2 * C + 3)


def digits_of(position: int) -> Tensor:
    """Returns the binary digits of a number, the last one first, along the axis of the memories."""
    return torch.tensor([position >> b & 1 for b in range(position.bit_length())]).view(-1, 1, 1, 1)


def make_inputs(
    T: int, L: int = 9, dtype: torch.dtype = torch.float64, *, position: int = 0, B: int = 2, H: int = 3
) -> list[Tensor]:
    """Returns queries, keys, values of another width, log decays from -4, weights of levels, and a state."""
    draw, K, V = torch.Generator().manual_seed(1000 * position + 10 * T + L), 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    log_decay = -4 * torch.rand(B, T, H, generator=draw, dtype=torch.float64) ** 4
    state = normal(B, position.bit_length(), H, K, V) * digits_of(position)
    sequences = (normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), log_decay, F.softplus(normal(B, T, H, L)))
    return [x.to(dtype) for x in (*sequences, state)]


def from_position(attention: Scan, position: int) -> Scan:
    """Returns the attention from a position as a function of tensors alone; gradients of empty memories are zero."""
    if position == 0:
        return attention
    return lambda *inputs: attention(*inputs[:-1], inputs[-1] * digits_of(position), position)


def over_pairs(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, weight: Tensor) -> Tensor:
    """Computes the equation, one pair of tokens after another."""
    y, L = torch.zeros_like(v), weight.shape[-1]
    for t in range(q.shape[1]):
        for s in range(t + 1):
            level = min(len(f"{t ^ s:b}") if t != s else 0, L - 1)
            score = weight[:, t, :, level] * log_decay[:, s + 1 : t + 1].sum(dim=1).exp() * (q[:, t] * k[:, s]).sum(-1)
            y[:, t] += score[..., None] * v[:, s]
    return y


def blocks_over_tokens(k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Computes the memories after all tokens: from the last token backwards, by the digits of their number."""
    T, end, memories = k.shape[1], k.shape[1], []
    for b in range(T.bit_length()):
        start = end - (1 << b) if T >> b & 1 else end
        kept = torch.stack([log_decay[:, s + 1 :].sum(dim=1) for s in range(T)], dim=1).exp()
        block = slice(start, end)
        memories.append(torch.einsum("bsh,bshk,bshv->bhkv", kept[:, block], k[:, block], v[:, block]))
        end = start
    return torch.stack(memories, dim=1)


@BOTH
@each_case("L", [1, 4, 9])
@each_case("T", [1, 7, C, 2 * C + 5])
def test_log_linear_attention_is_the_sum_over_pairs(attention: Scan, T: int, L: int) -> None:
    """With fewer weights than levels, far levels share the last weight."""
    *inputs, _ = make_inputs(T, L)
    y, state = attention(*inputs)
    assert_same([y, state], [over_pairs(*inputs), blocks_over_tokens(*inputs[1:4])], 1e-12)


@each_case("T", LENGTHS)
@each_case("position", [0, 5, C, 2 * C + 7, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_chunked_log_linear_attention_is_the_naive_one(
    T: int, position: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Also from states whose number of tokens is no multiple of the chunk."""
    inputs = make_inputs(T, 7, dtype, position=position)[: 6 if position else 5]

    actual = values_and_gradients(from_position(chunked_log_linear_attention, position), inputs)
    assert_same(actual, values_and_gradients(from_position(naive_log_linear_attention, position), inputs), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@each_case("kind", ["none", "strong", "infinite", "mixed"])
def test_chunked_log_linear_attention_holds_at_extreme_decays(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    q, k, v, log_decay, weight, state = make_inputs(2 * C + 3, 9, dtype, position=11)
    mixed = torch.where(log_decay < -0.5, -torch.inf, torch.where(log_decay < -0.1, -1e4, -1e-4))
    decays = {"none": 0.0, "strong": -1e4, "infinite": -torch.inf}
    log_decay = mixed.to(dtype) if kind == "mixed" else torch.full_like(log_decay, decays[kind])
    inputs = [q, k, v, log_decay, weight, state]
    actual = values_and_gradients(from_position(chunked_log_linear_attention, 11), inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(from_position(naive_log_linear_attention, 11), inputs), tolerance)


@BOTH
@each_case("T", [5, C, 2 * C + 3])
def test_log_linear_attention_equals_fla(attention: Scan, T: int) -> None:
    """Their levels are masks of index arithmetic over all pairs; the last chunk of ours is partial."""
    theirs = fla_naive.load("ops/log_linear_attn/naive.py").naive_log_linear_attn
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        *inputs, _ = make_inputs(T, count_levels(T), dtype)
        assert_same([attention(*inputs)[0]], [theirs(*inputs)], tolerance)


@BOTH
def test_log_linear_attention_with_equal_weights_is_linear_attention(attention: Scan) -> None:
    q, k, v, log_decay, weight, state = make_inputs(2 * C + 3, position=13)
    y, after = attention(q, k, v, log_decay, torch.ones_like(weight), state, 13)
    expected, last = naive_gated_linear_attention(q, k, v, log_decay[..., None], state.sum(dim=1))
    assert_same([y, after.sum(dim=1)], [expected, last], 1e-12)


@each_case("cut", [1, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C + 2])
def test_log_linear_attention_in_two_calls_is_one_call(cut: int) -> None:
    *inputs, state = make_inputs(2 * C + 3, position=6)
    whole, last = log_linear_attention(*inputs, state, 6)
    first, middle = log_linear_attention(*(x[:, :cut] for x in inputs), state, 6)
    second, end = log_linear_attention(*(x[:, cut:] for x in inputs), middle, 6 + cut)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@BOTH
def test_log_linear_attention_keeps_a_memory_for_each_digit(attention: Scan) -> None:
    for T in (1, 2, 3, 4, 7, 8, C + 1):
        _, state = attention(*make_inputs(T)[:-1])
        used = state.abs().amax(dim=(0, 2, 3, 4)) > 0
        assert used.tolist() == [digit == "1" for digit in reversed(f"{T:b}")]


@each_case("T", [1, C + 3])
def test_log_linear_attention_computes_bfloat16_inputs_in_float32(T: int) -> None:
    q, k, v, log_decay, weight, state = make_inputs(T, 9, torch.float32, position=3)
    low = [x.bfloat16() for x in (q, k, v)]
    expected, last = naive_log_linear_attention(*(x.float() for x in low), log_decay, weight, state, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, got = log_linear_attention(*low, log_decay, weight, state, 3)
    assert (y.dtype, got.dtype) == (torch.bfloat16, torch.float32)
    assert_same([got], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


def test_log_linear_attention_counts_levels() -> None:
    assert [count_levels(T) for T in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 3, 3, 4, 4, 5]


@each_case("T, position", [(1, 0), (1, 8), (2 * C + 3, 0)])
def test_log_linear_attention_counts_as_its_definition(T: int, position: int) -> None:
    with FlopCounter() as counter:
        log_linear_attention(*make_inputs(T, position=position), position)
    assert counter.get_total_flops() == 2 * 2 * T * 3 * 4 * 5 * (1 + {1: 1, 9: 5, 2 * C + 3: 8}[T + position])
