"""TTT's mixer compared with a loop over its equations with inner gradients by autograd, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.ttt import TTT
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

PIECES = ((30, 1, 1, 7), (1,) * 5 + (34,), (3, 16, 20), (16, 16, 7))


def rotated(x_K: Tensor, position: int, theta: float) -> Tensor:
    """Rotates the pairs of features i and i + K/2, as complex numbers."""
    half = len(x_K) // 2
    angles = torch.tensor([position * theta ** (-i / half) for i in range(half)], dtype=x_K.dtype)
    turned = torch.complex(x_K[:half], x_K[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag])


def by_equations(layer: TTT, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, D = x_BTD.shape
    H, K, C = layer.n_heads, layer.head_dim, layer.mini_batch
    qk, v, gate = (x_BTD @ w.T for w in layer.projections.weight.split(D))
    taps = layer.q_filter.shape[1]
    qk = F.pad(qk, (0, 0, taps - 1, 0))
    y_BTD = torch.zeros_like(x_BTD)
    for b in range(B):
        for h in range(H):
            part = slice(h * K, (h + 1) * K)

            def f(x: Tensor, W: Tensor, bias: Tensor, h: int = h) -> Tensor:
                norm = layer.inner_weight[h], layer.inner_bias[h], layer.norm_eps
                return x + F.layer_norm(W.T @ x + bias, (K,), *norm)

            now = [layer.first_weight[h].detach(), layer.first_bias[h].detach()]
            velocity = [torch.zeros_like(w) for w in now]
            for t in range(T):
                if t % C == 0:
                    start = [w.clone().requires_grad_() for w in now]
                window = qk[b, t : t + taps]
                q = ((window * layer.q_filter.T).sum(0) + layer.q_bias)[part]
                k = ((window * layer.k_filter.T).sum(0) + layer.k_bias)[part]
                q, k = rotated(q, t % C, layer.rope_theta), rotated(k, t % C, layer.rope_theta)
                with torch.enable_grad():
                    loss = (f(k.detach(), *start) - v[b, t, part].detach()).square().sum() / 2
                rate = torch.sigmoid(layer.rate(x_BTD[b, t])[h]) * layer.base_rate / (K * C)
                keep, momentum = 1.0, 0.0
                if layer.decays is not None:
                    z = layer.decays(x_BTD[b, t]).sigmoid()
                    keep, momentum = 1 - z[h], z[H + h]
                gradients = torch.autograd.grad(loss, start)
                velocity = [momentum * s + rate * g for s, g in zip(velocity, gradients, strict=True)]
                now = [keep * w - s for w, s in zip(now, velocity, strict=True)]
                y_BTD[b, t, part] = f(q, *now)
    return layer.out(F.gelu(gate, approximate="tanh") * layer.norm(y_BTD))


@pytest.mark.parametrize("titans", [False, True])
def test_ttt_equals_its_equations(titans: bool) -> None:
    layer = perturbed(TTT(8, 2, mini_batch=4, d_conv=3, base_rate=5.0, rope_theta=7.0, titans=titans))
    x = random(2, 11, 8)
    with torch.no_grad():
        torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("titans", [False, True])
@pytest.mark.parametrize("lengths", PIECES)
def test_ttt_in_pieces_equals_one_call(lengths: tuple[int, ...], titans: bool) -> None:
    """Pieces that end within a mini-batch leave its start in the state."""
    layer, x = perturbed(TTT(8, 2, titans=titans)), random(2, 39, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_ttt_initial_rates_and_decays() -> None:
    """A mini-batch moves W by half the mean gradient over K; with `titans` it forgets 2 % per token."""
    layer, x = TTT(8, 2, mini_batch=5, titans=True), torch.zeros(1, 1, 8)
    decays = layer._decays(x)
    assert decays is not None
    torch.testing.assert_close(decays.log_keep_BTH.exp(), torch.full((1, 1, 2), 1 - 1 / (1 + math.exp(4))))
    torch.testing.assert_close(decays.log_momentum_BTH.exp(), torch.full((1, 1, 2), 0.5))


def test_ttt_memory_is_float32_in_a_bfloat16_model_and_separate_from_the_weights() -> None:
    layer = TTT(8, 2).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.memory.now_BHJK.dtype, state.tail.dtype) == (torch.float32, torch.bfloat16)
    assert state.memory.now_BHJK.shape == (3, 2, 5, 4)
    before = state.memory.now_BHJK.clone()
    x = torch.ones(3, 2, 8, dtype=torch.bfloat16)
    layer(x, state, context(x))
    torch.nn.init.ones_(layer.first_weight)
    assert torch.equal(state.memory.now_BHJK, before)
