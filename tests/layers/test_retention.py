"""RetNet's mixer compared with a loop over its recurrence, and decoding in pieces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Rope
from lmzoo.layers.retention import Retention, retention_log_decay
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: Retention, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, D = x_BTD.shape
    H, K, V = layer.n_heads, layer.key_dim, layer.value_dim
    q_rows, k_rows = layer.qk.weight.view(2, H, K, D)
    v_rows, gate_rows = layer.v_gate.weight.view(2, H, V, D)
    scale, bias = layer.norm.weight.view(H, V), layer.norm.bias.view(H, V)
    y_BTE = torch.zeros(B, T, H, V, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, V, dtype=x_BTD.dtype)
            for t in range(T):
                x_D = x_BTD[b, t]
                turn_KK = rotation(t, K, layer.rope.theta)
                S_KV = (1 - 2 ** (-5 - h)) * S_KV + torch.outer(turn_KK @ k_rows[h] @ x_D, v_rows[h] @ x_D)
                y_V = S_KV.T @ turn_KK @ q_rows[h] @ x_D / math.sqrt(K)
                y_V = (y_V - y_V.mean()) / (y_V.var(correction=0) + 1e-5).sqrt() * scale[h] + bias[h]
                y_BTE[b, t, h] = F.silu(gate_rows[h] @ x_D) * y_V
    return y_BTE.flatten(2) @ layer.out.weight.T


def rotation(t: int, K: int, theta: float) -> Tensor:
    """Returns the matrix that turns feature i and i + K/2 by the angle t theta^(-2i/K)."""
    turn_KK = torch.zeros(K, K, dtype=torch.float64)
    for i in range(K // 2):
        angle = t * theta ** (-2 * i / K)
        first, second = i, i + K // 2
        turn_KK[first, first] = turn_KK[second, second] = math.cos(angle)
        turn_KK[first, second], turn_KK[second, first] = -math.sin(angle), math.sin(angle)
    return turn_KK


def test_retention_equals_its_equations() -> None:
    layer, x = perturbed(Retention(8, 2, rope=Rope(30.0))), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_retention_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(Retention(8, 2, rope=Rope())), random(2, 92, 8)
    for lengths in ((70, 1, 1, 20), (1,) * 5 + (87,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_retention_log_decay_is_exact_for_many_heads() -> None:
    """In float32, 1 - 2^(-5-h) is 1 from 20 heads on."""
    decay_H1 = retention_log_decay(40, torch.device("cpu"))
    torch.testing.assert_close(decay_H1[30].item(), -(2.0**-35), rtol=1e-9, atol=0)


def test_retention_initialization_follows_the_authors() -> None:
    layer = Retention(64, 2, rope=Rope())
    for weight, scale, width in (
        (layer.qk.weight, 2**-2.5, 64 + 64),
        (layer.v_gate.weight, 2**-2.5, 64 + 128),
        (layer.out.weight, 0.5, 128 + 64),
    ):
        bound = scale * math.sqrt(6 / width)
        assert 0.99 * bound < weight.abs().max() <= bound


def test_retention_state_is_float32_in_a_bfloat16_model() -> None:
    state = Retention(8, 2, rope=Rope()).bfloat16().init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert state.dtype == torch.float32
    assert state.shape == (3, 2, 4, 8)


def test_retention_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(Retention(8, 2, rope=Rope()), random(1, 7, 8))
    assert declared == counted
