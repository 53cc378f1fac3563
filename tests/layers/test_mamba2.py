"""Mamba-2's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.mamba2 import Mamba2
from lmzoo.ops.linear_chunks import CHUNK_LENGTH
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: Mamba2, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    (B, T, _), P, N, H, G = x_BTD.shape, layer.head_dim, layer.d_state, layer.n_heads, layer.n_groups
    E, W = H * P, layer.conv.reach
    z, xBC, dt = (x_BTD @ layer.in_proj.weight.T).split(layer.widths, dim=-1)
    padded = F.pad(xBC, (0, 0, W - 1, 0))
    out = torch.zeros(B, T, E, dtype=x_BTD.dtype)
    for b in range(B):
        S = [torch.zeros(N, P, dtype=x_BTD.dtype) for _ in range(H)]
        for t in range(T):
            mixed = F.silu((padded[b, t : t + W] * layer.conv.weight.T).sum(0) + layer.conv.bias)
            x, maps = mixed[:E].view(H, P), mixed[E:].view(2, G, N)
            for h in range(H):
                B_N, C_N = maps[:, h * G // H]
                delta = torch.log(1 + torch.exp(dt[b, t, h] + layer.dt_bias[h])).clamp(min=layer.dt_min)
                decay = torch.exp(-delta * torch.exp(layer.A_log[h]))
                S[h] = decay * S[h] + torch.outer(B_N, delta * x[h])
                out[b, t, h * P : (h + 1) * P] = S[h].T @ C_N + layer.D[h] * x[h]
    out = (out * F.silu(z)).view(B, T, G, -1)
    if layer.norm_weight is None:
        return out.flatten(2) @ layer.out_proj.weight.T
    out = out / (out.square().mean(-1, keepdim=True) + layer.norm_eps).sqrt()
    return (out.flatten(2) * layer.norm_weight) @ layer.out_proj.weight.T


OPTIONS = [{}, {"n_groups": 2}, {"d_inner": 12, "dt_min": 0.6}, {"normalized": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_mamba2_equals_its_equations(options: dict[str, Any]) -> None:
    layer, x = perturbed(Mamba2(8, d_state=3, head_dim=4, d_conv=3, **options)), random(2, 9, 8)
    assert layer.out_proj.in_features == options.get("d_inner", 16)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (CHUNK_LENGTH + 7,)])
def test_mamba2_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(Mamba2(8, d_state=3, head_dim=4)), random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


@pytest.mark.parametrize("dt_bias", [-100.0, 100.0])
def test_mamba2_is_finite_at_extreme_step_sizes(dt_bias: float) -> None:
    layer, x = Mamba2(8, d_state=3, head_dim=4), random(2, 9, 8).float()
    with torch.no_grad():
        layer.dt_bias.fill_(dt_bias)
    y_BTD = layer(x, None, context(x))[0]
    y_BTD.square().sum().backward()
    assert y_BTD.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_mamba2_initialization_follows_the_authors() -> None:
    layer = Mamba2(500, d_state=4, head_dim=1)
    rate, step = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 1 <= rate.min() < 1.2
    assert 15.8 < rate.max() <= 16.001
    assert abs(rate.mean() - 8.5) < 0.7
    assert 1e-3 * 0.999 < step.min() < 1.2e-3
    assert 0.09 < step.max() < 0.1001
    assert (layer.D == 1).all()
    assert (layer.norm_weight == 1).all()


def test_mamba2_state_is_float32_in_a_bfloat16_model() -> None:
    state = Mamba2(8, d_state=3, head_dim=4).init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.tail.dtype, state.memory.dtype) == (torch.bfloat16, torch.float32)
    assert (state.tail.shape, state.memory.shape) == ((3, 3, 16 + 2 * 3), (3, 4, 3, 4))


def test_mamba2_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(Mamba2(8, d_state=3, head_dim=4), random(1, 7, 8))
    assert declared == counted
