"""Tests of attention whose queries and keys are normalized behind the rotation."""

from __future__ import annotations

from functools import partial

import torch

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.late_norm_attention import LateNormAttention
from lmzoo.layers.norm import RMSNorm, each_head


def test_late_norm_attention_normalizes_rotated_queries_and_keys() -> None:
    """tests/hf compares a whole model with transformers' HunYuanDenseV1ForCausalLM."""
    late_norm = each_head(partial(RMSNorm, eps=0.1))
    layer = LateNormAttention(12, 3, n_kv_heads=1, rope=Rope(10.0), late_norm=late_norm)
    for norm in (layer.late_q_norm, layer.late_k_norm):
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    plain = Attention(12, 3, n_kv_heads=1, rope=Rope(10.0))
    plain.qkv.load_state_dict(layer.qkv.state_dict())
    x_BTD = torch.randn(2, 5, 12)
    ctx = Context(0, 5, x_BTD.device, x_BTD.dtype)
    q, k, v = layer.project(x_BTD, ctx)
    rotated_q, rotated_k, same_v = plain.project(x_BTD, ctx)
    assert torch.equal(v, same_v)
    for found, rotated, norm in ((q, rotated_q, layer.late_q_norm), (k, rotated_k, layer.late_k_norm)):
        rms = (rotated.square().mean(dim=-1, keepdim=True) + 0.1).sqrt()
        torch.testing.assert_close(found, norm.weight * rotated / rms)
