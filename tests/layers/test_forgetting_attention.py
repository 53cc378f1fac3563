"""FoX's mixers compared with a loop over their equations, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.forgetting_attention import ForgettingAttention, ForgettingAttentionPro
from tests.layers.decoded import in_one_call, in_pieces, perturbed, random

FORMS = {
    "plain": lambda: ForgettingAttention(12, 4),
    "grouped": lambda: ForgettingAttention(16, 4, n_kv_heads=2, rope=Rope()),
    "pro": lambda: ForgettingAttentionPro(12, 4, n_kv_heads=2),
}


def normalized(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def by_equations(layer: ForgettingAttention, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one head and one query at a time, with the products of gates written out."""
    B, T, _ = x_BTD.shape
    H, G, K = layer.n_heads, layer.n_kv_heads, layer.head_dim
    q, k, v = (part.unflatten(-1, (-1, K)) for part in layer.qkv(x_BTD).split([H * K, G * K, G * K], dim=-1))
    if isinstance(layer, ForgettingAttentionPro):
        k_share, v_share = (x_BTD @ layer.shift.weight.T).sigmoid().chunk(2, dim=-1)
        k_before, v_before = (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1) for x in (k, v))
        k = k_share[..., None] * k_before + (1 - k_share[..., None]) * k
        v = v_share[..., None] * v_before + (1 - v_share[..., None]) * v
        q, k = normalized(q, layer.query_norm.weight), normalized(k, layer.key_norm.weight)
    gate_BTH = torch.sigmoid(x_BTD @ layer.forget.weight.T + layer.forget.bias)
    y = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            for t in range(T):
                kept = torch.stack([gate_BTH[b, s + 1 : t + 1, h].prod() for s in range(t + 1)])
                weights = kept * torch.exp(k[b, : t + 1, g] @ q[b, t, h] / math.sqrt(K))
                y[b, t, h] = (weights / weights.sum()) @ v[b, : t + 1, g]
    if isinstance(layer, ForgettingAttentionPro):
        return layer.out(normalized(y, layer.out_norm.weight).flatten(2) * (x_BTD @ layer.gate.weight.T).sigmoid())
    return layer.out(y.flatten(2))


@pytest.mark.parametrize("form", ["plain", "pro"])
def test_forgetting_attention_equals_its_equations(form: str) -> None:
    layer, x = perturbed(FORMS[form]()), random(2, 7, 12)
    expected = by_equations(layer, x)
    torch.testing.assert_close(in_one_call(layer, x), expected)
    torch.testing.assert_close(in_one_call(layer, x[:, :1]), expected[:, :1])


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4), (2, 7)])
@pytest.mark.parametrize("form", FORMS)
def test_forgetting_attention_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer = perturbed(FORMS[form]())
    x = random(2, 9, layer.qkv.in_features)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_forgetting_attention_with_open_gates_is_attention() -> None:
    layer, plain = perturbed(ForgettingAttention(12, 4)), perturbed(Attention(12, 4))
    plain.load_state_dict({name: p for name, p in layer.state_dict().items() if not name.startswith("forget")})
    with torch.no_grad():
        layer.forget.bias.fill_(100.0)
    x = random(2, 9, 12)
    torch.testing.assert_close(in_one_call(layer, x), in_one_call(plain, x))


def test_forgetting_attention_keeps_the_gates_in_float32() -> None:
    layer = ForgettingAttentionPro(16, 4, n_kv_heads=2).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.decay.data.dtype, state.decay.data.shape) == (torch.float32, (3, 9, 4))
    assert state.tail is not None
    assert (state.tail.dtype, state.tail.shape) == (torch.bfloat16, (3, 2, 2, 4))
