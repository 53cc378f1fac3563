"""Tests gated linear attention's chunked form against its definition, and the definition against implementations of
others: the loops of flash-linear-attention and the retention of MiniMax in transformers.
"""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor
from transformers import MiniMaxConfig
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.dispatch import watch
from lmzoo.ops.gated_linear_attention import (
    SHORTEST_CHUNKED,
    SHORTEST_LARGE,
    chunked_gated_linear_attention,
    gated_linear_attention,
    naive_gated_linear_attention,
)
from lmzoo.ops.kernels import Kernel
from lmzoo.ops.linear_chunks import CHUNK_LENGTH as C
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, 2, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C + 3)
BOTH = pytest.mark.parametrize("rule", [naive_gated_linear_attention, chunked_gated_linear_attention])


def make_inputs(T: int, A: int = 4, dtype: torch.dtype = torch.float64, *, B: int = 2, H: int = 3) -> list[Tensor]:
    """Returns queries, keys, values of another width, decays from 0.02 to 1 for A channels, and a state."""
    draw, K, V = torch.Generator().manual_seed(T), 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    log_decay = -4 * torch.rand(B, T, H, A, generator=draw, dtype=torch.float64) ** 4
    inputs = [normal(B, T, H, K) / math.sqrt(K), normal(B, T, H, K), normal(B, T, H, V), log_decay, normal(B, H, K, V)]
    return [x.to(dtype) for x in inputs]


@each_case("T", LENGTHS)
@each_case("A", [1, 4])
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_chunked_gated_linear_attention_is_the_naive_one(
    T: int, A: int, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, A, dtype)
    inputs = inputs if with_state else inputs[:-1]
    actual = values_and_gradients(chunked_gated_linear_attention, inputs)
    assert_same(actual, values_and_gradients(naive_gated_linear_attention, inputs), tolerance)


@each_case("A", [1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@each_case("kind", ["none", "weak", "strong", "infinite", "mixed"])
def test_chunked_gated_linear_attention_holds_at_extreme_decays(
    kind: str, A: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Strong decays between weak ones must not reduce the precision of what follows them."""
    q, k, v, log_decay, state = make_inputs(2 * C + 3, A, dtype)
    mixed = torch.where(log_decay < -0.5, -torch.inf, torch.where(log_decay < -0.1, -1e4, -1e-4))
    decays = {"none": 0.0, "weak": -1e-6, "strong": -1e4, "infinite": -torch.inf}
    log_decay = mixed.to(dtype) if kind == "mixed" else torch.full_like(log_decay, decays[kind])
    inputs = [q, k, v, log_decay, state]
    actual = values_and_gradients(chunked_gated_linear_attention, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(naive_gated_linear_attention, inputs), tolerance)


@BOTH
@each_case("A", [1, 4])
@each_case("G", [1, 2])
def test_gated_linear_attention_with_groups_repeats_queries_and_keys(G: int, A: int, rule: Scan) -> None:
    q, k, v, log_decay, state = make_inputs(C + 3, A, H=4)
    inputs = [q[:, :, :G], k[:, :, :G], v, log_decay, state]

    def repeated(q: Tensor, k: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        q, k = (x.repeat_interleave(4 // G, dim=2) for x in (q, k))
        return naive_gated_linear_attention(q, k, *others)

    assert_same(values_and_gradients(rule, inputs), values_and_gradients(repeated, inputs), 1e-12)


@pytest.mark.parametrize(("V", "expected"), [(31, SHORTEST_CHUNKED), (32, SHORTEST_LARGE)])
def test_gated_linear_attention_leaves_the_loop_earlier_for_large_memories(V: int, expected: int) -> None:
    """Of 8 heads with keys of 64 numbers."""
    seen: list[int] = []
    with watch(lambda choice, args: seen.append(choice.shortest)):
        gated_linear_attention(torch.randn(1, 2, 1, 64), torch.randn(1, 2, 1, 64), torch.randn(1, 2, 8, V))
    assert seen == [expected]


@each_case("T", [3, C + 3])
def test_gated_linear_attention_equals_fla_gla(T: int) -> None:
    q, k, v, log_decay, state = make_inputs(T, 4, torch.float32)
    recurrent = fla_naive.load("ops/gla/naive.py").naive_recurrent_gla
    expected = recurrent(q, k, v, log_decay, initial_state=state, output_final_state=True)
    assert_same(gated_linear_attention(q * 4**-0.5, k, v, log_decay, state), expected, 1e-5)


def test_gated_linear_attention_with_constant_decays_equals_minimax() -> None:
    """Removes the projections, the norm and the gate of the layer, so that its output is the retention."""
    config = MiniMaxConfig(
        hidden_size=12, num_attention_heads=3, num_hidden_layers=2, layer_types=["linear_attention"] * 2, block_size=8
    )
    theirs = MiniMaxLightningAttention(config, layer_idx=0)
    q, k, v = (x.float() for x in make_inputs(37)[:3])
    v = v[..., :4]
    theirs.act_fn = theirs.norm = theirs.out_proj = torch.nn.Identity()
    theirs.qkv_proj = torch.nn.Identity()
    theirs.output_gate = _Constant(math.inf)  # the sigmoid of which is 1
    expected, memory = theirs(torch.cat([q, k, v], dim=-1).flatten(2), None, None)
    log_decay = -theirs.slope_rate[:, :, 0].expand(*q.shape[:2], -1, -1)
    y, state = gated_linear_attention(q, k, v, log_decay)
    assert_same([y.flatten(2)], [expected], 1e-5)
    assert_same([state], [memory], 1e-5)


class _Constant(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((*x.shape[:-1], 12), self.value)


@BOTH
def test_gated_linear_attention_by_hand(rule: Scan) -> None:
    """Each channel decays by its own share before the new value is added."""
    q, k = torch.tensor([[[[1.0, 10.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    v, log_decay = torch.tensor([[[[3.0]]]]), torch.tensor([[[[0.5, 0.25]]]]).log()
    y, state = rule(q, k, v, log_decay, torch.tensor([[[[8.0], [4.0]]]]))
    assert state.flatten().tolist() == [7.0, 1.0]
    assert y.item() == 17.0


@each_case("cut", [1, SHORTEST_CHUNKED, C, 2 * C + 2])
def test_gated_linear_attention_in_two_calls_is_one_call(cut: int) -> None:
    *inputs, state = make_inputs(2 * C + 3)
    whole, last = gated_linear_attention(*inputs, state)
    first, middle = gated_linear_attention(*(x[:, :cut] for x in inputs), state)
    second, end = gated_linear_attention(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@BOTH
def test_gated_linear_attention_without_decays_and_state(rule: Scan) -> None:
    q, k, v, log_decay, state = make_inputs(5, 1)
    assert_same(rule(q, k, v), rule(q, k, v, torch.zeros_like(log_decay), torch.zeros_like(state)), 0)


@each_case("T", [1, C + 3])
def test_gated_linear_attention_computes_bfloat16_inputs_in_float32(T: int) -> None:
    *inputs, state = make_inputs(T, dtype=torch.float32)
    low = [x.bfloat16() for x in inputs]
    expected, last = naive_gated_linear_attention(*(x.float() for x in low), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, got = gated_linear_attention(*low, state)
    assert (y.dtype, got.dtype) == (torch.bfloat16, torch.float32)
    assert_same([got], [last], 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, 2 * C + 3])
def test_gated_linear_attention_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        gated_linear_attention(*make_inputs(T))
    assert counter.get_total_flops() == 4 * 2 * T * 3 * 4 * 5


def test_gated_linear_attention_gives_a_kernel_queries_and_keys_of_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads may share queries and keys, which the kernels for a GPU do not know."""
    seen: list[tuple[int, ...]] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, *others: Tensor | None) -> tuple[Tensor, Tensor]:
        seen.extend((tuple(q.shape), tuple(k.shape)))
        return naive_gated_linear_attention(q, k, v, *others)

    module = sys.modules[naive_gated_linear_attention.__module__]  # lmzoo.ops has a function of its name
    monkeypatch.setattr(module, "find_kernel", lambda *_: Kernel(kernel, "a test"))
    q, k, v = torch.randn(2, 5, 2, 3), torch.randn(2, 5, 2, 3), torch.randn(2, 5, 4, 6)
    y, last = gated_linear_attention(q, k, v)
    assert seen == [(2, 5, 4, 3)] * 2
    expected_y, expected_last = naive_gated_linear_attention(q, k, v)
    torch.testing.assert_close((y, last), (expected_y, expected_last))
