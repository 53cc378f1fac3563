"""Attention with an output gate: its definition, decoding in pieces, and the attention of Qwen3-Next."""

from __future__ import annotations

import torch
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from lmzoo.layers.context import Rope
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.norm import UnitOffsetRMSNorm, each_head
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def test_gated_attention_equals_its_definition() -> None:
    layer, x = perturbed(GatedAttention(12, 4, n_kv_heads=2, bias=True, sinks=True)), random(2, 7, 12)
    y = layer.attend(*layer.project(x, context(x))).flatten(2)
    torch.testing.assert_close(in_one_call(layer, x), layer.out(torch.sigmoid(layer.gate(x)) * y))


def test_gated_attention_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(GatedAttention(12, 4, window=3, rope=Rope())), random(2, 9, 12)
    torch.testing.assert_close(in_pieces(layer, x, 4, 1, 4), in_one_call(layer, x))


def test_gated_attention_equals_that_of_qwen3_next() -> None:
    """Their projection of queries holds, for each head, first the query and then the gate."""
    config = Qwen3NextConfig(
        hidden_size=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = perturbed(Qwen3NextAttention(config, 3))
    norm = each_head(lambda width: UnitOffsetRMSNorm(width, 1e-6))
    rope = Rope(fraction=0.25)
    ours = GatedAttention(12, 4, n_kv_heads=2, head_dim=8, rope=rope, qk_norm=norm).double()
    query, gate = theirs.q_proj.weight.unflatten(0, (4, 2, 8)).unbind(1)
    weights = {
        "qkv.weight": torch.cat([query.flatten(0, 1), theirs.k_proj.weight, theirs.v_proj.weight]),
        "gate.weight": gate.flatten(0, 1),
        "out.weight": theirs.o_proj.weight,
        "q_norm.weight": theirs.q_norm.weight,
        "k_norm.weight": theirs.k_norm.weight,
    }
    ours.load_state_dict(weights, strict=True)
    x = random(2, 6, 12)
    table = [torch.cat([part, part], dim=-1)[None] for part in context(x).rope(rope, 8)]
    mask = torch.full((6, 6), float("-inf"), dtype=x.dtype).triu(1)[None, None]
    expected, _ = theirs(x, position_embeddings=table, attention_mask=mask)
    torch.testing.assert_close(in_one_call(ours, x), expected, atol=1e-6, rtol=0)  # their softmax is in float32
