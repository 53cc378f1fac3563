"""Mamba's mixer compared with its equations, and decoding in pieces.

tests/backbones/test_mamba.py compares it with another implementation.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.mamba import Mamba, default_dt_rank
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.selective_scan import CHUNK_LENGTH
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: Mamba, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token at a time."""
    (B, T, _), (E, N), W = x_BTD.shape, layer.A_log.shape, layer.conv.reach
    u, z = (x_BTD @ layer.in_proj.weight.T).split(E, dim=-1)
    padded, h, ys = F.pad(u, (0, 0, W - 1, 0)), torch.zeros(B, E, N, dtype=x_BTD.dtype), []
    for t in range(T):
        u_BE = F.silu((padded[:, t : t + W] * layer.conv.weight.T).sum(1) + layer.conv.bias)
        selected = (u_BE @ layer.x_proj.weight.T).split([layer.x_proj.out_features - 2 * N, N, N], dim=-1)
        if layer.select_norms is not None:
            selected = [
                norm.weight * part / (part.square().mean(-1, keepdim=True) + norm.eps).sqrt()
                for norm, part in zip(layer.select_norms, selected, strict=True)
            ]
        low, B_BN, C_BN = selected
        delta_BE = torch.log(1 + torch.exp(low @ layer.dt_proj.weight.T + layer.dt_bias))
        decay_BEN = torch.exp(-delta_BE[..., None] * layer.A_log.exp())
        decay_BEN = 2 * decay_BEN - 1 if layer.signed else decay_BEN
        h = decay_BEN * h + (delta_BE * u_BE)[..., None] * B_BN[:, None]
        ys.append(((h * C_BN[:, None]).sum(-1) + layer.D * u_BE) * F.silu(z[:, t]))
    return torch.stack(ys, dim=1) @ layer.out_proj.weight.T


@pytest.mark.parametrize("dt_rank", [None, 3])
@pytest.mark.parametrize("negative", [False, True])
def test_mamba_equals_its_equations(dt_rank: int | None, negative: bool) -> None:
    options = {"d_state": 3, "d_conv": 3, "dt_rank": dt_rank, "negative_eigenvalues": negative}
    layer, x = perturbed(Mamba(6, **options)), random(2, 9, 6)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_mamba_with_norms_of_what_it_selects_equals_its_equations() -> None:
    layer = perturbed(Mamba(6, d_state=3, d_conv=3, dt_rank=2, select_norm=partial(RMSNorm, eps=0.1)))
    x = random(2, 9, 6)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


def test_mamba_initialization_follows_the_authors() -> None:
    """Every channel has the decay rates 1, 2, 3, ...; step sizes are between 0.001 and 0.1."""
    layer = Mamba(500, d_state=4)
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 5.0).expand(1000, 4))
    step = F.softplus(layer.dt_bias)
    assert 1e-3 * 0.999 < step.min() < 1.2e-3
    assert 0.09 < step.max() < 0.1001
    assert (layer.D == 1).all()


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 2), (1,) * 3 + (CHUNK_LENGTH + 4,)])
@pytest.mark.parametrize("negative", [False, True])
def test_mamba_in_pieces_equals_one_call(lengths: tuple[int, ...], negative: bool) -> None:
    layer = perturbed(Mamba(6, d_state=3, d_conv=3, negative_eigenvalues=negative))
    x = random(2, CHUNK_LENGTH + 7, 6)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_mamba_declares_reach_growth_and_precision() -> None:
    layer = Mamba(6)
    assert (layer.reach, layer.state_growth) == (None, "constant")
    assert set(layer.keep_float32) <= dict(layer.named_parameters()).keys()
    assert layer.parameter_roles == {"dt_bias": "vector", "A_log": "vector", "D": "vector"}


def test_mamba_state_is_float32_in_a_bfloat16_model() -> None:
    state = Mamba(6).init_state(2, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.tail.dtype, state.h.dtype) == (torch.bfloat16, torch.float32)


def test_default_dt_rank_rounds_up() -> None:
    assert [default_dt_rank(width) for width in (1, 16, 17)] == [1, 1, 2]


def test_mamba_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(Mamba(6), random(1, 7, 6))
    assert declared == counted
