"""LFM2's mixer: its definition, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.double_gated_conv import DoubleGatedConv
from tests.layers.decoded import in_one_call, in_pieces, perturbed, random


def test_double_gated_conv_equals_its_definition() -> None:
    layer, x = perturbed(DoubleGatedConv(5, 3)), random(2, 8, 5)
    b, c, u = layer.in_proj(x).split([5, 5, 5], dim=-1)
    padded = F.pad((b * u).transpose(1, 2), (2, 0))
    convolved = F.conv1d(padded, layer.filters[:, None], groups=5).transpose(1, 2)
    torch.testing.assert_close(in_one_call(layer, x), layer.out(c * convolved))


@pytest.mark.parametrize("lengths", [(1,) * 8, (1, 2, 5), (7, 1)])
def test_double_gated_conv_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(DoubleGatedConv(5, 4)), random(2, 8, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_double_gated_conv_declares_reach_flops_and_roles() -> None:
    layer = DoubleGatedConv(5, 4)
    assert (layer.reach, layer.state_growth, layer.flops(9)) == (4, "constant", 2 * 5 * 4)
    assert layer.parameter_roles == {"filters": "vector"}
    assert layer.init_state(2, 9, torch.zeros(0)).shape == (2, 3, 5)
