"""Lightning attention: compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lmzoo.layers.lightning_attention import LightningAttention
from lmzoo.ops.linear_chunks import CHUNK_LENGTH
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


@torch.no_grad()
def test_lightning_attention_equals_its_equations() -> None:
    layer, x_TD = perturbed(LightningAttention(8, 4, head_dim=3, steepness=0.7, norm_eps=0.1)), random(9, 8)
    q, k, v = F.silu(x_TD @ layer.qkv.weight.T).view(9, 3, 4, 3).unbind(1)
    S, out = [torch.zeros(3, 3).double() for _ in range(4)], []
    for t in range(9):
        for h in range(4):
            S[h] = torch.exp(torch.tensor(-0.7 / 2 ** (2 * (h + 1)))) * S[h] + torch.outer(k[t, h], v[t, h])
        y = torch.cat([S[h].T @ q[t, h] for h in range(4)])
        y = y / (y.square().mean() + 0.1).sqrt() * layer.norm.weight
        out.append(layer.out.weight @ (torch.sigmoid(layer.gate.weight @ x_TD[t]) * y))
    torch.testing.assert_close(in_one_call(layer, x_TD[None])[0], torch.stack(out), rtol=1e-5, atol=1e-6)


def test_lightning_attention_in_pieces_equals_one_call_and_declares_its_flops() -> None:
    layer, x = perturbed(LightningAttention(8, 2)), random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, CHUNK_LENGTH + 3, 1, 1, 7), in_one_call(layer, x))
    declared, counted = declared_and_counted_flops(layer, random(1, 7, 8))
    assert declared == counted


def test_lightning_attention_has_a_memory_of_float32_in_a_bfloat16_model() -> None:
    memory = LightningAttention(8, 2).init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (memory.dtype, memory.shape) == (torch.float32, (3, 2, 4, 4))
