"""The block-diagonal linear map."""

from __future__ import annotations

import torch

from lmzoo.layers.block_linear import BlockLinear
from tests.layers.decoded import random


def test_block_linear_is_a_block_diagonal_matrix() -> None:
    layer, x_BTD = BlockLinear(6, 3).double(), random(2, 5, 6)
    torch.testing.assert_close(layer(x_BTD), x_BTD @ torch.block_diag(*layer.weight).T)
    assert (layer.reach, layer.flops(5)) == (1, 2 * 3 * 2 * 2)
