"""Mamba-3's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.mamba3 import Mamba3, angles, rotate, rotating_pairs
from lmzoo.ops.linear_chunks import CHUNK_LENGTH
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def by_equations(layer: Mamba3, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token and one head at a time; a rotation is a matrix."""
    (B, T, _), P, N, H, R = x_BTD.shape, layer.head_dim, layer.d_state, layer.n_heads, layer.n_pairs
    out = torch.zeros(B, T, H * P, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S, angle = torch.zeros(N, P, dtype=x_BTD.dtype), torch.zeros(R, dtype=x_BTD.dtype)
            before = torch.zeros(N, P, dtype=x_BTD.dtype)
            for t in range(T):
                z, x, B_N, C_N, dt, A, mix, turn = (layer.in_proj.weight @ x_BTD[b, t]).split(layer.widths)
                head = slice(h * P, (h + 1) * P)
                delta = torch.log(1 + torch.exp(dt[h] + layer.dt_bias[h]))
                decay = torch.exp(-delta * torch.log(1 + torch.exp(A[h])).clamp(min=1e-4))
                share = 1 / (1 + torch.exp(-mix[h]))
                angle = angle + delta * math.pi * torch.tanh(turn)
                turned = torch.eye(N, dtype=x_BTD.dtype)
                for r in range(R):
                    cos, sin = angle[r].cos(), angle[r].sin()
                    turned[2 * r : 2 * r + 2, 2 * r : 2 * r + 2] = torch.stack([cos, -sin, sin, cos]).view(2, 2)
                B_N = turned @ (B_N / _rms(B_N, 1e-5) * layer.B_norm.weight + layer.B_bias[h])
                C_N = turned @ (C_N / _rms(C_N, 1e-5) * layer.C_norm.weight + layer.C_bias[h])
                now = torch.outer(B_N, x[head])
                S = decay * S + (1 - share) * delta * decay * before + share * delta * now
                before = now
                out[b, t, head] = (S.T @ C_N + layer.D[h] * x[head]) * F.silu(z[head])
    return layer.out_proj(out)


def _rms(x: Tensor, eps: float) -> Tensor:
    return (x.square().mean() + eps).sqrt()


@pytest.mark.parametrize("rope_fraction", [0.5, 1.0])
def test_mamba3_equals_its_equations(rope_fraction: float) -> None:
    layer, x = perturbed(Mamba3(8, d_state=6, head_dim=4, rope_fraction=rope_fraction)), random(2, 9, 8)
    before, H = sum(layer.widths[:5]), layer.n_heads
    with torch.no_grad():
        layer.in_proj.weight[before : before + H] *= 30  # rates of 1e-8 to 10, so that the least rate matters
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (CHUNK_LENGTH + 7,)])
def test_mamba3_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(Mamba3(8, d_state=4, head_dim=4)), random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_mamba3_counts_modulo_two() -> None:
    """A vector that turns by half a circle at each 1 has the parity of their number as its sign."""
    ones = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1])
    parity = ones.cumsum(0) % 2
    angle = angles((torch.pi * ones.double())[None, :, None, None], None)
    state = rotate(torch.tensor([1.0, 0.0], dtype=torch.float64).expand(1, 10, 1, 2), angle)[0, :, 0, 0]
    torch.testing.assert_close(state, 1.0 - 2.0 * parity.double())


def test_angles_are_exact_after_many_tokens() -> None:
    turn = torch.full((1, 100_000, 1, 1), 0.1)
    expected = (0.1 * torch.arange(1, 100_001, dtype=torch.float64)).remainder(2 * math.pi)
    found = angles(turn, None).flatten().double()
    off = (found - expected + math.pi).remainder(2 * math.pi) - math.pi
    assert off.abs().max() < 2e-4  # 100,000 times the rounding of 0.1 to float32
    torch.testing.assert_close(angles(turn[:, 1:], turn[:, 0]).flatten(), angles(turn, None)[:, 1:].flatten())


def test_rotating_pairs_are_the_share_of_the_features() -> None:
    assert [rotating_pairs(8, share) for share in (0, 0.2, 0.5, 0.9, 1)] == [0, 0, 2, 3, 4]


@pytest.mark.parametrize("dt_bias", [-100.0, 100.0])
def test_mamba3_is_finite_at_extreme_step_sizes(dt_bias: float) -> None:
    layer, x = Mamba3(8, d_state=4, head_dim=4), random(2, 9, 8).float()
    with torch.no_grad():
        layer.dt_bias.fill_(dt_bias)
    y_BTD = layer(x, None, context(x))[0]
    y_BTD.square().sum().backward()
    assert y_BTD.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_mamba3_state_is_float32_in_a_bfloat16_model() -> None:
    angle, memory = Mamba3(8, d_state=4, head_dim=4).init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert {x.dtype for x in (angle, *memory)} == {torch.float32}
    assert (angle.shape, memory.memory.shape, memory.k.shape, memory.v.shape) == (
        (3, 4, 1),
        (3, 4, 4, 4),
        (3, 4, 4),
        (3, 4, 4),
    )
