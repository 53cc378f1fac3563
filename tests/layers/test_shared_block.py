"""A shared transformer block: its definition, decoding in pieces, and what two depths share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Rope
from lmzoo.layers.shared_attention import EMBEDDED
from lmzoo.layers.shared_block import SharedBlock
from lmzoo.layers.stack import Residual, Stack
from tests.layers.decoded import context, in_one_call, perturbed, random

FORMS: list[dict[str, Any]] = [{"adapts_attention": True, "rope": Rope()}, {"n_kv_heads": 1}]


def call(layer: Any, x_BTD: Tensor, embedded_BTD: Tensor, state: Any = None, start: int = 0) -> tuple[Tensor, Any]:
    ctx = context(x_BTD, start)
    ctx.carry[EMBEDDED] = embedded_BTD
    return layer(x_BTD, state, ctx)


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_shared_block_is_attention_and_mlp_over_features_beside_embeddings(form: dict[str, Any]) -> None:
    layer: Any = perturbed(SharedBlock(8, 2, 10, adapter_rank=3, norm_eps=0.1, **form))
    x, embedded = random(2, 7, 8), random(2, 7, 8, seed=5)
    both = F.rms_norm(torch.cat([x, embedded], dim=-1), (16,), layer.norm.weight, eps=0.1)
    attention = layer.attention
    assert attention.scale == (8 / 2) ** -0.5, "the width of a head is 8, and half of it is divided by"
    n = F.rms_norm(in_one_call(attention, both), (8,), layer.mlp_norm.weight, eps=0.1)
    up = n @ (layer.mlp.up.base.weight + layer.mlp.up.up @ layer.mlp.up.down.weight).T
    expected = (F.gelu(up[..., :10]) * up[..., 10:]) @ layer.mlp.down.weight.T @ layer.out.weight.T
    torch.testing.assert_close(call(layer, x, embedded)[0], expected)


@torch.no_grad()
def test_shared_block_in_pieces_equals_one_call_with_a_cache_for_each_depth() -> None:
    blocks = [SharedBlock(8, 2, 10, adapter_rank=3, adapts_attention=True, rope=Rope()) for _ in range(2)]
    blocks[1].share(blocks[0])
    layer = perturbed(Stack(Residual(None, block) for block in blocks))
    x, embedded = random(2, 9, 8), random(2, 9, 8, seed=5)
    expected, _ = call(layer, x, embedded)
    state, pieces = layer.init_state(2, 9, x), []
    for start, end in ((0, 4), (4, 5), (5, 9)):
        y, state = call(layer, x[:, start:end], embedded[:, start:end], state, start)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_share_keeps_the_low_rank_maps_and_the_output_map(form: dict[str, Any]) -> None:
    first, second = (SharedBlock(8, 2, 10, adapter_rank=3, **form) for _ in range(2))
    second.share(first)
    both = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    names = {name for name, p in first.named_parameters() if id(p) in both}
    qkv = "attention.qkv.base.weight" if "adapts_attention" in form else "attention.qkv.weight"
    shared = {"norm.weight", "mlp_norm.weight", "attention.out.weight", "mlp.up.base.weight", "mlp.down.weight", qkv}
    assert names == shared
