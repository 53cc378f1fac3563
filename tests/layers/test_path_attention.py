"""PaTH's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.path_attention import PathAttention
from lmzoo.state import clone
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

FORMS = {
    "plain": {},
    "grouped": {"n_kv_heads": 2, "w_rank": 3},
    "gated": {"forget_gate": True, "n_kv_heads": 2, "d_conv": 4},
}


def by_equations(layer: PathAttention, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one head and one pair of tokens at a time, with products of gates."""
    B, T, _ = x_BTD.shape
    H, G, K = layer.n_heads, layer.n_kv_heads, layer.head_dim
    q, k, v = (part.unflatten(-1, (-1, K)) for part in (x_BTD @ layer.qkv.weight.T).split([H * K, G * K, G * K], -1))
    taps = layer.w_conv.weight
    padded = F.pad(x_BTD @ layer.w_down.weight.T @ layer.w_up.weight.T, (0, 0, taps.shape[1] - 1, 0))
    y = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            matrices, gates = [], []
            for t in range(T):
                w = F.silu((padded[b, t : t + taps.shape[1]] * taps.T).sum(0))[g * K : (g + 1) * K]
                w = w / (w @ w + 1e-6).sqrt()
                beta = 2 * torch.sigmoid(layer.beta.weight[g] @ x_BTD[b, t] + layer.beta.bias[g])
                matrices.append(torch.eye(K, dtype=x_BTD.dtype) - beta * torch.outer(w, w))
                if layer.forget is not None:
                    gates.append(torch.sigmoid(layer.forget.weight[h] @ x_BTD[b, t] + layer.forget.bias[h]))
            for t in range(T):
                weights, product, kept = torch.zeros(t + 1, dtype=x_BTD.dtype), torch.eye(K, dtype=x_BTD.dtype), 1.0
                for s in reversed(range(t + 1)):
                    weights[s] = kept * torch.exp(q[b, t, h] @ product @ k[b, s, g] / math.sqrt(K))
                    product = product @ matrices[s]
                    kept = kept * gates[s] ** (K**-0.5) if gates else kept
                y[b, t, h] = (weights / weights.sum()) @ v[b, : t + 1, g]
    return layer.out(y.flatten(2))


@pytest.mark.parametrize("form", FORMS)
def test_path_attention_equals_its_equations(form: str) -> None:
    layer, x = perturbed(PathAttention(12, 4, **FORMS[form])), random(2, 7, 12)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4), (2, 7)])
@pytest.mark.parametrize("form", FORMS)
def test_path_attention_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(PathAttention(12, 4, **FORMS[form])), random(2, 9, 12)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_path_attention_writes_all_keys_anew_and_leaves_the_old_state() -> None:
    layer, x = perturbed(PathAttention(12, 4)), random(2, 6, 12)
    _, state = layer(x[:, :5], layer.init_state(2, 9, x), context(x[:, :5]))
    before = clone(state)
    _, after = layer(x[:, 5:], state, context(x[:, 5:], 5))
    assert (after.keys.entries()[:, :5] - state.keys.entries()).abs().amin(dim=(0, 2, 3)).gt(0).all()
    for kept, copied in zip(state, before, strict=True):
        if kept is not None:
            assert torch.equal(*(x if isinstance(x, Tensor) else x.entries() for x in (kept, copied)))


def test_path_attention_keeps_keys_and_gates_in_float32() -> None:
    layer = PathAttention(16, 4, n_kv_heads=2, forget_gate=True).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    _, state = layer(torch.ones(3, 2, 16, dtype=torch.bfloat16), state, context(torch.zeros(3, 2, 16)))
    assert (state.keys.data.dtype, state.keys.entries().shape) == (torch.float32, (3, 2, 2, 4))
    assert (state.decay.data.dtype, state.values.data.dtype) == (torch.float32, torch.bfloat16)
