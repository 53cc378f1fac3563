"""Attention with shared weights: its definition, decoding in pieces, and what two depths share."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.context import Rope
from lmzoo.layers.shared_attention import EMBEDDED, SharedAttention
from lmzoo.layers.stack import Stack
from tests.layers.decoded import context, in_one_call, perturbed, random


def run(layer: SharedAttention, x_BTD: Tensor, embedded_BTD: Tensor) -> Tensor:
    ctx = context(x_BTD)
    ctx.carry[EMBEDDED] = embedded_BTD
    return layer(x_BTD, None, ctx)[0]


@torch.no_grad()
def test_shared_attention_attends_over_features_beside_normalized_embeddings() -> None:
    layer, x, embedded = perturbed(SharedAttention(8, 2, rope=Rope())), random(2, 7, 8), random(2, 7, 8, seed=5)
    both = torch.cat([x, layer.norm(embedded)], dim=-1)
    expected = in_one_call(layer.attention, both) @ layer.out.weight.T
    torch.testing.assert_close(run(layer, x, embedded), expected)


@torch.no_grad()
def test_shared_attention_in_pieces_equals_one_call_with_a_cache_for_each_depth() -> None:
    first, second = (SharedAttention(8, 2, n_kv_heads=1, rope=Rope()) for _ in range(2))
    second.share(first)
    layer, x, embedded = perturbed(Stack([first, second])), random(2, 9, 8), random(2, 9, 8, seed=5)
    ctx = context(x)
    ctx.carry[EMBEDDED] = embedded
    expected, state, pieces = layer(x, None, ctx)[0], layer.init_state(2, 9, x), []
    for start, end in ((0, 4), (4, 5), (5, 9)):
        ctx = context(x[:, start:end], start)
        ctx.carry[EMBEDDED] = embedded[:, start:end]
        y, state = layer(x[:, start:end], state, ctx)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)


def test_share_keeps_the_output_map() -> None:
    first, second = SharedAttention(8, 2), SharedAttention(8, 2)
    own = second.out.weight
    second.share(first)
    assert second.attention is first.attention
    assert second.norm is first.norm
    assert second.out.weight is own
    assert own is not first.out.weight
