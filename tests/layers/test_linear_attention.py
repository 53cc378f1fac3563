"""Linear attention compared with a matrix of weights, and decoding in pieces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear_attention import LinearAttention, elu_plus_one
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: LinearAttention, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card: for each position the mean of the values, with weights phi(q) . phi(k)."""
    B, T, D = x_BTD.shape
    H, K = layer.n_heads, layer.head_dim
    y_BTHK = torch.zeros(B, T, H, K, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            q, k, v = (x_BTD[b] @ w[h].T for w in layer.qkv.weight.view(3, H, K, D))
            for t in range(T):
                weights = (F.elu(k[: t + 1]) + 1) @ (F.elu(q[t]) + 1)
                y_BTHK[b, t, h] = weights @ v[: t + 1] / (weights.sum() + layer.eps)
    return y_BTHK.flatten(2) @ layer.out.weight.T


def test_linear_attention_equals_its_equations() -> None:
    layer, x = perturbed(LinearAttention(8, 2, eps=1e-2)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_linear_attention_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(LinearAttention(8, 2)), random(2, 92, 8)
    for lengths in ((70, 1, 1, 20), (1,) * 5 + (87,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_elu_plus_one_is_positive_where_elu_rounds_to_minus_one() -> None:
    x = torch.tensor([-40.0, -17.0, -1.0, 0.0, 2.0], requires_grad=True)
    y = elu_plus_one(x)
    expected = torch.where(x > 0, x + 1, x.exp())  # elu(-40) + 1 is zero even in float64
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.tensor([-40.0, -17, -1, 0, 0]).exp())


def test_linear_attention_state_is_float32_in_a_bfloat16_model() -> None:
    state = LinearAttention(8, 2).bfloat16().init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert state.dtype == torch.float32
    assert state.shape == (3, 2, 4, 5)


def test_linear_attention_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(LinearAttention(8, 2), random(1, 7, 8))
    assert declared == counted
