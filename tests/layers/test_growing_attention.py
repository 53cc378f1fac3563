"""Tests of attention whose queries grow with their position."""

from __future__ import annotations

import math

import torch

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.growing_attention import GrowingAttention


def test_growing_attention_multiplies_queries_alone() -> None:
    """tests/hf compares a whole model with transformers' Ministral3ForCausalLM."""
    layer = GrowingAttention(12, 3, n_kv_heads=1, rope=Rope(10.0), growth=0.5, length=4)
    plain = Attention(12, 3, n_kv_heads=1, rope=Rope(10.0))
    plain.load_state_dict(layer.state_dict())
    x_BTD = torch.randn(2, 6, 12)
    ctx = Context(3, 6, x_BTD.device, x_BTD.dtype)  # the positions 3 to 8
    q, k, v = layer.project(x_BTD, ctx)
    plain_q, plain_k, plain_v = plain.project(x_BTD, ctx)
    assert torch.equal(k, plain_k)
    assert torch.equal(v, plain_v)
    for t, turns in enumerate((0, 1, 1, 1, 1, 2)):
        torch.testing.assert_close(q[:, t], plain_q[:, t] * (1 + 0.5 * math.log(1 + turns)))
