"""Engram's memory compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lmzoo.layers.engram import TOKENS, Engram
from lmzoo.ops.ngram_hash import hash_multipliers, naive_ngram_hash
from tests.layers.decoded import context, perturbed, random

FORMS = {
    "3-grams": lambda: Engram(12, 50, memory_dim=8, table_size=11, n_heads=2, d_conv=4, index=1),
    "2-grams": lambda: Engram(12, 50, memory_dim=6, table_size=17, max_ngram=2, n_heads=3, d_conv=1),
    "4-grams": lambda: Engram(12, 50, memory_dim=6, table_size=5, max_ngram=4, n_heads=1, d_conv=2),
}
IDX = torch.randint(50, (2, 17), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def run(layer: Engram, x_BTD: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
    """Returns the output of the layer in one call without a state, or in pieces of these lengths."""
    state = None if lengths is None else layer.init_state(len(x_BTD), 4, x_BTD)
    pieces, start = [], 0
    for length in lengths or (x_BTD.shape[1],):
        ctx = context(x_BTD[:, start : start + length], start)
        ctx.carry[TOKENS] = IDX[:, start : start + length]
        y_BTD, state = layer(x_BTD[:, start : start + length], state, ctx)
        pieces.append(y_BTD)
        start += length
    return torch.cat(pieces, dim=1)


def by_equations(layer: Engram, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one position at a time."""
    B, T, D = x_BTD.shape
    before = torch.full((B, layer.max_ngram - 1), layer.vocab_size)
    rows = naive_ngram_hash(IDX, before, layer.multipliers, layer.sizes)

    def normalized(x: Tensor, norm: str) -> Tensor:
        return (1 + getattr(layer, norm).weight) * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    gated, y = torch.zeros(B, T, D, dtype=torch.float64), torch.zeros(B, T, D, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            found = torch.cat([layer.table[row] for row in rows[b, t]])
            key, query = normalized(layer.key.weight @ found, "key_norm"), normalized(x_BTD[b, t], "query_norm")
            score = (key @ query).item() / math.sqrt(D)
            gate = 1 / (1 + math.exp(-math.copysign(math.sqrt(abs(score)), score)))
            gated[b, t] = gate * (layer.value.weight @ found)
    inputs = normalized(gated, "conv_norm")
    for t in range(T):
        taps = torch.zeros(B, D, dtype=torch.float64)
        for k in range(layer.d_conv):
            source = t - (layer.d_conv - 1 - k) * layer.max_ngram
            if source >= 0:
                taps += layer.conv[:, k] * inputs[:, source]
        y[:, t] = gated[:, t] + taps * taps.sigmoid()
    return y


@pytest.mark.parametrize("form", FORMS)
def test_engram_equals_its_equations(form: str) -> None:
    layer, x = perturbed(FORMS[form]()), random(2, 17, 12)
    torch.testing.assert_close(run(layer, x), by_equations(layer, x).detach())


@pytest.mark.parametrize("lengths", [(17,), (1,) * 17, (2, 1, 14), (13, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_engram_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(FORMS[form]()), random(2, 17, 12)
    torch.testing.assert_close(run(layer, x, lengths), run(layer, x))


def test_engram_depends_on_the_declared_number_of_tokens() -> None:
    layer, x = perturbed(FORMS["3-grams"]()), random(2, 17, 12)
    assert layer.reach == 12
    full = run(layer, x)
    IDX[:, 4] += 1
    changed = (run(layer, x) != full).any(dim=-1).any(dim=0)
    IDX[:, 4] -= 1
    assert changed.nonzero().flatten().tolist() == list(range(4, 4 + 12))


def test_engram_gives_each_memory_other_tables() -> None:
    first, second = (Engram(8, 50, memory_dim=8, table_size=10, n_heads=4, d_conv=1, index=index) for index in (0, 1))
    assert not {size for tables in first.sizes for size in tables} & {
        size for tables in second.sizes for size in tables
    }
    assert first.multipliers != second.multipliers


def test_engram_makes_the_same_hashes_in_every_version() -> None:
    """A saved model holds the tables, and not the hashes by which they are read."""
    layer = Engram(8, 50, memory_dim=8, table_size=10, n_heads=4, d_conv=1, index=2, seed=7)
    assert layer.multipliers == hash_multipliers(3, 51, 7 + 2 * 10007)
    layer = Engram(8, 50, memory_dim=8, table_size=10, n_heads=4, d_conv=1)
    assert layer.multipliers == hash_multipliers(3, 51, 0)


def test_engram_declares_the_share_of_its_rows_that_a_token_reads() -> None:
    layer = Engram(8, 50, memory_dim=8, table_size=10, n_heads=4, d_conv=1)
    assert layer.active == {"table": 8 / len(layer.table)}


def test_engram_starts_without_a_convolution_and_with_padding_tokens() -> None:
    layer = FORMS["3-grams"]()
    assert not layer.conv.any()
    state = layer.init_state(2, 9, torch.zeros(0))
    assert state.past_BN.tolist() == [[50, 50], [50, 50]]
    assert state.tail_BSD.shape == (2, 9, 12)


def test_engram_gate_is_one_half_for_a_score_of_zero() -> None:
    layer, x = perturbed(FORMS["3-grams"]()), random(2, 17, 12)
    with torch.no_grad():
        layer.key.weight.zero_()
        layer.conv.zero_()
        rows = naive_ngram_hash(IDX, torch.full((2, 2), 50), layer.multipliers, layer.sizes)
        torch.testing.assert_close(run(layer, x), 0.5 * layer.value(layer.table[rows].flatten(-2)))
