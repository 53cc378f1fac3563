"""A linear map with a low-rank map beside it, compared with the matrix that both are."""

from __future__ import annotations

import torch

from lmzoo.layers.adapted import Adapted
from lmzoo.layers.linear import Linear
from tests.layers.decoded import declared_and_counted_flops, perturbed, random


@torch.no_grad()
def test_adapted_adds_a_matrix_of_low_rank_to_each_part() -> None:
    layer, x = perturbed(Adapted(Linear(6, 12, bias=False), 2, parts=3)), random(2, 5, 6)
    expected = x @ layer.base.weight.T
    for part in range(3):
        low = layer.down.weight[2 * part : 2 * part + 2]
        expected[..., 4 * part : 4 * part + 4] += x @ (layer.up[4 * part : 4 * part + 4] @ low).T
    torch.testing.assert_close(layer(x), expected)


def test_adapted_starts_as_its_base_and_declares_its_flops() -> None:
    base, x = Linear(6, 12, bias=False), random(2, 5, 6).float()
    layer = Adapted(base, 2)
    torch.testing.assert_close(layer(x), base(x))
    declared, counted = declared_and_counted_flops(Adapted(base, 2, parts=3), random(1, 7, 6))
    assert declared == counted
