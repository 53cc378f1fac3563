"""Mamba-2 with factors compared with the plain layer, whose weights have the factors in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.scaled_mamba2 import ScaledMamba2
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random
from tests.layers.test_mamba2 import by_equations

FACTORS = (0.7, 1.3, 0.9, 1.1, 1.6)
SIZES: dict[str, Any] = {"d_state": 3, "head_dim": 4, "n_groups": 2, "d_conv": 3}


@pytest.mark.parametrize("normalized", [True, False])
@torch.no_grad()
def test_scaled_mamba2_has_its_factors_in_the_projection(normalized: bool) -> None:
    layer, x = perturbed(ScaledMamba2(8, factors=FACTORS, normalized=normalized, **SIZES)), random(2, 9, 8)
    found = in_one_call(layer, x)
    widths = torch.tensor([16, 16, 2 * 3, 2 * 3, 4])
    layer.in_proj.weight.mul_(torch.tensor(FACTORS, dtype=torch.float64).repeat_interleave(widths)[:, None])
    torch.testing.assert_close(found, by_equations(layer, x))


@torch.no_grad()
def test_scaled_mamba2_with_the_gate_last_normalizes_first() -> None:
    layer = perturbed(ScaledMamba2(8, factors=(1.0,) * 5, gate_last=True, **SIZES))
    y, gate = random(1, 5, 16), F.silu(random(1, 5, 16, seed=3))
    groups = y.view(1, 5, 2, 8)
    normed = (groups / (groups.square().mean(-1, keepdim=True) + layer.norm_eps).sqrt()).flatten(2)
    torch.testing.assert_close(layer.gated(y, gate), normed * layer.norm_weight * gate)
    layer.gate_last = False
    assert not torch.allclose(layer.gated(y, gate), normed * layer.norm_weight * gate)


def test_scaled_mamba2_in_pieces_equals_one_call_and_declares_its_flops() -> None:
    layer, x = perturbed(ScaledMamba2(8, factors=FACTORS, gate_last=True, **SIZES)), random(2, 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, 5, 1, 1, 5), in_one_call(layer, x))
    declared, counted = declared_and_counted_flops(layer, x)
    assert declared == counted
