"""GLA's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.gla import GLA
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: GLA, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, D = x_BTD.shape
    H, K, V = layer.n_heads, layer.key_dim, layer.value_dim
    q_rows, k_rows, v_rows = (w.view(H, -1, D) for w in layer.qkv.weight.split([H * K, H * K, H * V]))
    y_BTHV = torch.zeros(B, T, H, V, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, V, dtype=x_BTD.dtype)
            for t in range(T):
                x_D = x_BTD[b, t]
                z_K = layer.decay_up(layer.decay_down.weight @ x_D)[h * K : (h + 1) * K]
                decay_K = torch.sigmoid(z_K) ** (1 / layer.temperature)
                S_KV = decay_K[:, None] * S_KV + torch.outer(k_rows[h] @ x_D, v_rows[h] @ x_D)
                y_BTHV[b, t, h] = layer.norm(S_KV.T @ q_rows[h] @ x_D / math.sqrt(K))
    return (F.silu(layer.gate(x_BTD)) * y_BTHV.flatten(2)) @ layer.out.weight.T


def test_gla_equals_its_equations() -> None:
    layer, x = perturbed(GLA(8, 2, gate_rank=3, temperature=2.0)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_gla_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(GLA(8, 2)), random(2, 92, 8)
    for lengths in ((70, 1, 1, 20), (1,) * 5 + (87,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_gla_is_finite_when_the_decays_are_extreme() -> None:
    """Decays of e^-50 and of 1 - 1e-26, in float32."""
    layer = GLA(8, 2, temperature=1.0).eval()
    for bias in (-50.0, 60.0):
        torch.nn.init.constant_(layer.decay_up.bias, bias)
        x = random(2, 70, 8).float().requires_grad_()
        y, _ = layer(x, None, None)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert y.isfinite().all()
        assert gradient.isfinite().all()


def test_gla_state_is_float32_in_a_bfloat16_model() -> None:
    state = GLA(8, 2).bfloat16().init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert state.dtype == torch.float32
    assert state.shape == (3, 2, 2, 4)


def test_gla_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(GLA(8, 2), random(1, 7, 8))
    assert declared == counted
