"""Attention over the cache of an earlier layer: its definition, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.stack import Stack, reach, state_growth
from lmzoo.ops.attention import naive_attention
from lmzoo.ops.rope import apply_rope
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def make(window: int | None) -> Stack:
    rope = Rope(theta=100.0)
    source = Attention(12, 4, n_kv_heads=2, window=window, rope=rope, carries=True)
    return perturbed(Stack([source, CrossLayerAttention(12, 4, window=window, rope=rope)]))


@pytest.mark.parametrize("window", [None, 3])
def test_cross_layer_attention_reads_the_keys_of_the_previous_layer(window: int | None) -> None:
    layers, x = make(window), random(2, 8, 12)
    source, cross = layers
    y = source(x, None, context(x))[0]
    _, k, v = source.project(x, context(x))
    q = apply_rope((y @ cross.q.weight.T).unflatten(-1, (4, 3)), *context(x).rope(cross.rope, 3))
    expected = naive_attention(q, k, v, window=window).flatten(2) @ cross.out.weight.T
    torch.testing.assert_close(in_one_call(layers, x), expected)


@pytest.mark.parametrize("lengths", [(1,) * 8, (5, 1, 2), (8,)])
@pytest.mark.parametrize("window", [None, 3])
def test_cross_layer_attention_in_pieces_equals_one_call(window: int | None, lengths: tuple[int, ...]) -> None:
    layers, x = make(window), random(2, 8, 12)
    torch.testing.assert_close(in_pieces(layers, x, *lengths), in_one_call(layers, x))


def test_cross_layer_attention_keeps_no_state() -> None:
    layer = CrossLayerAttention(12, 4)
    assert layer.init_state(2, 5, torch.zeros(0)) == ()
    assert state_growth(layer) == "constant"


def test_cross_layer_attention_leaves_the_reach_to_the_earlier_layer() -> None:
    assert reach(make(None)) is None
    assert reach(make(3)) == 3


def test_cross_layer_attention_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(make(None), random(1, 7, 12))
    assert declared == counted
