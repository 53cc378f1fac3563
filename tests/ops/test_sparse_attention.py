"""Tests sparse attention and its choices against their definitions, plain attention, and flash-linear-attention."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lmzoo.ops.attention import naive_attention
from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.sparse_attention import (
    FORCED,
    block_attention,
    choose_blocks,
    gathered_sparse_attention,
    index_scores,
    masked_sparse_attention,
    mean_weights,
    naive_block_attention,
    naive_index_scores,
    naive_mean_weights,
    naive_sparse_attention,
    sparse_attention,
)
from lmzoo.ops.stable_topk import stable_topk
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

FORMS = pytest.mark.parametrize(
    "attention", [naive_sparse_attention, masked_sparse_attention, gathered_sparse_attention]
)
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
B, H, G, K, V = 2, 4, 2, 6, 5


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def qkv(T: int, S: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns T queries, S keys and S values."""
    return [
        normal(B, n, heads, width, dtype=dtype, seed=i)
        for i, (n, heads, width) in enumerate(((T, H, K), (S, G, K), (S, G, V)))
    ]


def choices(T: int, S: int, E: int, N: int) -> Tensor:
    """Returns N different positions for each query, its own among them; some are after it, some at S and beyond."""
    draw = torch.Generator().manual_seed(10 * T + S)
    others = torch.rand(B, T, E, S + 3, generator=draw).argsort(-1)
    own = torch.arange(S - T, S)[:, None, None].expand(B, T, E, 1)
    rest = others.masked_select(others != own).view(B, T, E, S + 2)[..., : N - 1]
    return torch.cat([rest[..., : N // 2], own, rest[..., N // 2 :]], dim=-1)


def fla(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Returns their naive file. It imports helpers for padded batches, which need triton and are not used here."""
    for name, attribute in (("fla.ops.utils", "prepare_chunk_offsets"), ("fla.ops.utils.pooling", "mean_pooling")):
        stub = ModuleType(name)
        setattr(stub, attribute, None)
        monkeypatch.setitem(sys.modules, name, stub)
    package, ops = ModuleType("fla"), ModuleType("fla.ops")
    package.__spec__ = importlib.util.find_spec("fla")
    monkeypatch.setitem(sys.modules, "fla.ops", ops)
    monkeypatch.setitem(sys.modules, "fla", package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # their kernels for GPUs are not installed
        return fla_naive.load("ops/nsa/naive.py")


@each_case("T, S", [(1, 1), (1, 9), (2, 2), (7, 7), (5, 12), (33, 33)])
@DTYPES
def test_index_scores_are_their_definition(T: int, S: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = [
        normal(B, T, 3, K, dtype=dtype),
        normal(B, S, K, dtype=dtype, seed=1),
        normal(B, T, 3, dtype=dtype, seed=2),
    ]
    later = torch.arange(S) > torch.arange(S - T, S)[:, None]
    assert all((scores(*inputs) == -torch.inf).eq(later).all() for scores in (naive_index_scores, index_scores))

    def seen(scores: Scan) -> Scan:
        return lambda *given: [scores(*given).masked_fill(later, 0.0)]

    assert_same(
        values_and_gradients(seen(index_scores), inputs),
        values_and_gradients(seen(naive_index_scores), inputs),
        tolerance,
    )


def test_index_scores_that_are_zero_are_zero_at_every_length() -> None:
    """ReLU makes scores equal to 0, and equal they must be, so that the position decides."""
    q, k, w = -normal(B, 40, 3, K).abs(), normal(B, 40, K).abs(), normal(B, 40, 3, seed=2)
    whole = index_scores(q, k, w)
    assert set(whole.unique().tolist()) == {0.0, -torch.inf}
    _, indices = stable_topk(whole, 5)
    assert (indices[:, 4:] == torch.arange(5)).all()


def test_index_scores_are_computed_in_float32() -> None:
    q, k, w = (x.bfloat16() for x in (normal(B, 5, 3, K), normal(B, 5, K), normal(B, 5, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        found = index_scores(q, k, w)
    assert found.dtype == torch.float32
    assert torch.equal(found, index_scores(q.float(), k.float(), w.float()))


@pytest.mark.parametrize(
    ("T", "S", "N"), [(1, 1, 1), (1, 9, 4), (2, 2, 2), (7, 7, 3), (5, 12, 6), (33, 33, 8), (4, 4, 6)]
)
@each_case("E", [1, G])
@pytest.mark.parametrize("attention", [masked_sparse_attention, gathered_sparse_attention])
@DTYPES
def test_sparse_attention_is_its_definition(
    attention: Scan, E: int, T: int, S: int, N: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs, chosen = qkv(T, S, dtype), choices(T, S, E, N)
    actual = values_and_gradients(lambda *x: [attention(*x, chosen)], inputs)
    assert_same(actual, values_and_gradients(lambda *x: [naive_sparse_attention(*x, chosen)], inputs), tolerance)


@FORMS
@each_case("E", [1, G])
def test_sparse_attention_to_all_keys_is_attention(attention: Scan, E: int) -> None:
    """In any order; positions after the query's, and from S on, are ignored."""
    q, k, _ = qkv(5, 8)
    v = normal(B, 8, G, K, seed=3)
    chosen = torch.arange(10).flip(0).expand(B, 5, E, 10)
    assert_same([attention(q, k, v, chosen)], [naive_attention(q, k, v)], 1e-12)


@each_case("T, S, N", [(1, 1, 1), (1, 9, 4), (7, 7, 3), (5, 12, 6), (33, 33, 8), (4, 4, 6)])
@DTYPES
def test_mean_weights_are_their_definition(T: int, S: int, N: int, dtype: torch.dtype, tolerance: float) -> None:
    (q, k, _), chosen = qkv(T, S, dtype), choices(T, S, 1, N)[:, :, 0]
    actual = values_and_gradients(lambda *x: [mean_weights(*x, chosen)], [q, k])
    assert_same(actual, values_and_gradients(lambda *x: [naive_mean_weights(*x, chosen)], [q, k]), tolerance)


@pytest.mark.parametrize("weights", [naive_mean_weights, mean_weights])
def test_mean_weights_are_those_of_sparse_attention(weights: Scan) -> None:
    """Values that are equal to the unit vectors give the weights of the keys as result."""
    q, k, _ = qkv(5, 8)
    chosen = torch.arange(10).flip(0).expand(B, 5, 10)
    found = weights(q, k, chosen)
    units = torch.eye(8, dtype=torch.float64)[:, None].expand(B, 8, G, 8)
    of_keys = naive_attention(q, k, units).mean(2)
    assert_same([found], [torch.nn.functional.pad(of_keys.flip(-1), (2, 0))], 1e-12)
    assert not found[:, 0, :6].any(), "the first query is at position 3"


@FORMS
def test_sparse_attention_reads_the_chosen_keys_only(attention: Scan) -> None:
    q, k, v = qkv(6, 9)
    chosen = choices(6, 9, G, 3)
    y = attention(q, k, v, chosen)
    for s in range(9):
        changed = [x.clone() for x in (k, v)]
        for x in changed:
            x[:, s] += 1
        moved = (attention(q, *changed, chosen) != y).any(-1).unflatten(2, (G, H // G))
        reads = (chosen == s).any(-1) & (torch.arange(3, 9) >= s)[:, None]
        assert torch.equal(moved.any(-1), reads), s


@FORMS
def test_sparse_attention_equals_fla(attention: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    C, T = 4, 18
    q, k, v = (x.float() for x in qkv(T, T))
    p = normal(B, T, G, T // C).softmax(-1)
    tokens = choose_blocks(p, 1, C, 0)
    blocks = tokens[..., ::C] // C
    expected = fla(monkeypatch).naive_nsa_selection(q, k, torch.nn.functional.pad(v, (0, K - V)), blocks, block_size=C)
    y = attention(q, k, v, tokens)
    assert_same([y], [expected[..., :V]], 1e-5)


@pytest.mark.parametrize(
    ("T", "position", "M"), [(1, 0, 0), (1, 7, 2), (9, 0, 2), (4, 3, 1), (4, 4, 2), (30, 0, 7), (5, 11, 4)]
)
@DTYPES
def test_block_attention_is_its_definition(T: int, position: int, M: int, dtype: torch.dtype, tolerance: float) -> None:
    assert (position + T) // 4 == M
    inputs = qkv(T, M, dtype)
    actual = values_and_gradients(lambda *x: block_attention(*x, 4, position), inputs)
    assert_same(actual, values_and_gradients(lambda *x: naive_block_attention(*x, 4, position), inputs), tolerance)


@pytest.mark.parametrize("attention", [naive_block_attention, block_attention])
def test_block_attention_sees_a_block_with_its_last_token(attention: Scan) -> None:
    q, k, v = qkv(10, 3)
    y, p = attention(q, k, v, 3, 1)  # positions 1 to 10, blocks that end at 2, 5 and 8
    assert (p > 0).sum(-1)[0, :, 0].tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert not y[:, 0].any()
    torch.testing.assert_close(p.sum(-1)[:, 1:], torch.full((B, 9, G), H / G, dtype=torch.float64))


@pytest.mark.parametrize("attention", [naive_block_attention, block_attention])
def test_block_attention_equals_fla(attention: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (x.float() for x in qkv(19, 4))
    expected, _ = fla(monkeypatch).naive_nsa_compression(q, k, v, 4, K**-0.5)
    y, _ = attention(q, k, v, 4, 0)
    assert_same([y], [expected], 1e-5)


def chosen_sets(tokens: Tensor, block_length: int) -> list[list[set[int]]]:
    """Returns the chosen blocks of row 0 that are not after the query's, by query and key head."""
    T = tokens.shape[1]
    blocks = tokens[0, ..., ::block_length] // block_length
    return [[{int(b) for b in row if b <= t // block_length} for row in blocks[t]] for t in range(T)]


@pytest.mark.parametrize("n", [1, 2, 9])
def test_choose_blocks_equals_fla(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count the forced blocks, and the blocks of the whole length, the incomplete one too."""
    T, C = 30, 4
    q, k, v = qkv(T, -(-T // C))
    theirs = fla(monkeypatch).naive_nsa_topk(q, k, n + FORCED, C, K**-0.5)
    _, p = block_attention(q, k[:, : T // C], v[:, : T // C], C, 0)
    ours = chosen_sets(choose_blocks(p, n, C, 0), C)
    for t in range(T):
        for g in range(G):
            assert ours[t][g] == set(theirs[0, t, g].tolist()) - {-1}, (t, g)


def test_choose_blocks_takes_the_first_of_equal_ones_and_never_a_later_block() -> None:
    ours = chosen_sets(choose_blocks(torch.zeros(1, 30, 1, 7), 2, 4, 0), 4)
    assert ours[3] == [{0}]
    assert ours[11] == [{0, 1, 2}]
    assert ours[15] == [{0, 1, 2, 3}]
    assert ours[29] == [{0, 1, 2, 6, 7}]


def test_choose_blocks_chooses_the_same_in_a_step() -> None:
    T, C = 30, 4
    q, k, v = qkv(T, T // C)
    _, p = block_attention(q, k, v, C, 0)
    whole = chosen_sets(choose_blocks(p, 1, C, 0), C)
    for t in range(T):
        M = (t + 1) // C
        _, p = block_attention(q[:, t : t + 1], k[:, :M], v[:, :M], C, t)
        tokens = choose_blocks(p, 1, C, t)
        assert [{int(b) for b in row} for row in tokens[0, 0, :, ::C] // C] == whole[t]


@each_case("T", [1, 9])
def test_sparse_attention_counts_the_chosen_keys(T: int) -> None:
    inputs, chosen = qkv(T, 40), choices(T, 40, 1, 6)
    with FlopCounter() as counter:
        sparse_attention(*inputs, chosen)
    assert counter.get_total_flops() == 2 * B * T * H * 6 * (K + V)
    with FlopCounter() as counter:
        mean_weights(*inputs[:2], chosen[:, :, 0])
    assert counter.get_total_flops() == 2 * B * T * H * 6 * K


@each_case("T", [1, 9])
def test_sparse_attention_takes_bfloat16(T: int) -> None:
    inputs, chosen = [x.bfloat16() for x in qkv(T, 40)], choices(T, 40, 1, 6)
    q, k, v = (x.float() for x in inputs)
    expected = [naive_sparse_attention(q, k, v, chosen), naive_mean_weights(q, k, chosen[:, :, 0])]
    with torch.autocast("cpu", torch.bfloat16):
        y, found = sparse_attention(*inputs, chosen), mean_weights(*inputs[:2], chosen[:, :, 0])
    assert (y.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert_same([y.float(), found], expected, 2e-2)
