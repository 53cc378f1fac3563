"""Griffin's recurrent block compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.rg_lru import RGLRU
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: RGLRU, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token at a time."""
    B, T, _ = x_BTD.shape
    E, W = layer.conv_weight.shape
    gate_BTE, u_BTE = layer.in_proj(x_BTD).chunk(2, dim=-1)
    padded = F.pad(u_BTE, (0, 0, W - 1, 0))
    W_i, W_r = (torch.block_diag(*part) for part in layer.gates.chunk(2))
    b_i, b_r = (part.flatten() for part in layer.gate_bias.chunk(2))
    h_BE, hs = torch.zeros(B, E, dtype=x_BTD.dtype), []
    for t in range(T):
        u_BE = layer.conv_bias + sum(layer.conv_weight[:, w] * padded[:, t + w] for w in range(W))
        i_BE, r_BE = torch.sigmoid(u_BE @ W_i + b_i), torch.sigmoid(u_BE @ W_r + b_r)
        a_BE = torch.sigmoid(-layer.decay) ** (8 * r_BE)
        scale = 1.0 if t == 0 else torch.sqrt(1 - a_BE**2)
        h_BE = a_BE * h_BE + scale * i_BE * u_BE
        hs.append(h_BE)
    return layer.out(F.gelu(gate_BTE, approximate="tanh") * torch.stack(hs, dim=1))


def test_rg_lru_equals_its_equations() -> None:
    layer, x = perturbed(RGLRU(8, 2, d_rnn=12, d_conv=3)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", [(20, 1, 1, 8), (1,) * 5 + (25,)])
def test_rg_lru_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(RGLRU(8, 2)), random(2, 30, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


@pytest.mark.parametrize("decay", [-1e4, 1e4])
def test_rg_lru_is_finite_at_extreme_decays(decay: float) -> None:
    """With a = 1 the derivative of sqrt(1 - a²) is infinite, and with a = 0 the log of the decay is."""
    layer, x = RGLRU(8, 2), random(2, 9, 8).float()
    with torch.no_grad():
        layer.decay.fill_(decay)
    y_BTD = layer(x, None, context(x))[0]
    y_BTD.square().sum().backward()
    assert y_BTD.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_rg_lru_initialization_follows_the_authors() -> None:
    """Decays with an open gate are between 0.9 and 0.999."""
    layer = RGLRU(400, 4, d_conv=4)
    decay = torch.sigmoid(-layer.decay) ** 8
    assert 0.9 * 0.9999 <= decay.min() < 0.901
    assert 0.998 < decay.max() <= 0.999 * 1.0001
    stds = ((layer.in_proj.weight, 400**-0.5), (layer.conv_weight, 0.0025**0.5), (layer.gates, 100**-0.5))
    for weight, std in (*stds, (layer.out.weight, 400**-0.5)):
        assert abs(weight.std() / std - 1) < 0.1
    for bias in (layer.in_proj.bias, layer.conv_bias, layer.gate_bias, layer.out.bias):
        assert not bias.any()


def test_rg_lru_state_is_float32_in_a_bfloat16_model() -> None:
    state = RGLRU(8, 2, d_conv=3).init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.tail.dtype, state.h.dtype) == (torch.bfloat16, torch.float32)
    assert (state.tail.shape, state.h.shape) == ((3, 2, 8), (3, 8))


def test_rg_lru_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(RGLRU(8, 2), random(1, 7, 8))
    assert declared == counted
