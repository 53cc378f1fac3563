"""Kimi delta attention compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.kda import KDA
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: KDA, x_BTD: Tensor, largest_beta: float = 1.0) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, _ = x_BTD.shape
    H, K = layer.n_heads, layer.key_dim
    taps = layer.conv.weight
    padded = F.pad(layer.qkv(x_BTD), (0, 0, taps.shape[1] - 1, 0))
    y_BTHK = torch.zeros(B, T, H, K, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, K, dtype=x_BTD.dtype)
            for t in range(T):
                x_D, mixed = x_BTD[b, t], F.silu((padded[b, t : t + taps.shape[1]] * taps.T).sum(0))
                q, k, v = mixed.view(3, H, K)[:, h]
                q, k = q / (q @ q + 1e-6).sqrt() / K**0.5, k / (k @ k + 1e-6).sqrt()
                beta = largest_beta * torch.sigmoid(layer.beta.weight[h] @ x_D)
                z_HK = layer.decay_up.weight @ layer.decay_down.weight @ x_D + layer.dt_bias
                step_K = torch.log1p(torch.exp(z_HK.view(H, K)[h]))
                transition_KK = torch.eye(K) - beta * torch.outer(k, k)
                S_KV = transition_KK @ torch.diag(torch.exp(-layer.A_log[h].exp() * step_K)) @ S_KV
                S_KV = S_KV + beta * torch.outer(k, v)
                gate_HK = torch.sigmoid(layer.gate_up.weight @ layer.gate_down.weight @ x_D)
                y_BTHK[b, t, h] = layer.norm(S_KV.T @ q) * gate_HK.view(H, K)[h]
    return layer.out(y_BTHK.flatten(2))


def test_kda_equals_its_equations() -> None:
    layer, x = perturbed(KDA(8, 2, 3, d_conv=3)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))
    layer = perturbed(KDA(8, 2, 3, d_conv=3, negative_eigenvalues=True))
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x, largest_beta=2.0))


def test_kda_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(KDA(8, 2, 3)), random(2, 92, 8)
    for lengths in ((70, 1, 1, 20), (1,) * 5 + (87,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_kda_decays_are_float32_in_a_bfloat16_model() -> None:
    layer = KDA(8, 2, 3).bfloat16()
    assert layer.log_decay(torch.ones(1, 1, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16)).memory.dtype == torch.float32


def test_kda_initialization_follows_the_authors() -> None:
    layer = KDA(8, 100, 5)
    rate, step = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 1 <= rate.min() < 1.6
    assert 15 < rate.max() <= 16.001
    assert 1e-3 * 0.999 < step.min() < 1.2e-3
    assert 0.09 < step.max() < 0.1001


def test_kda_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(KDA(8, 2, 3), random(1, 7, 8))
    assert declared == counted
