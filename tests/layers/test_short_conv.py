"""The short convolution: its definition, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.short_conv import ShortConv
from tests.layers.decoded import in_one_call, in_pieces, perturbed, random


@pytest.mark.parametrize("bias", [True, False])
def test_short_conv_is_a_depthwise_causal_convolution_and_silu(bias: bool) -> None:
    layer, x = perturbed(ShortConv(5, 3, bias=bias)), random(2, 8, 5)
    padded = F.pad(x.transpose(1, 2), (2, 0))
    expected = F.silu(F.conv1d(padded, layer.weight[:, None], layer.bias, groups=5).transpose(1, 2))
    torch.testing.assert_close(in_one_call(layer, x), expected)


@pytest.mark.parametrize("lengths", [(1,) * 8, (1, 2, 5), (7, 1)])
def test_short_conv_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(ShortConv(5, 4)), random(2, 8, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_short_conv_initial_values_are_torchs() -> None:
    for parameter in ShortConv(500, 4).parameters():
        assert 0.49 < parameter.abs().max() <= 0.5


def test_short_conv_declares_reach_flops_and_roles() -> None:
    layer = ShortConv(5, 4)
    assert (layer.reach, layer.state_growth, layer.flops(9)) == (4, "constant", 2 * 5 * 4)
    assert layer.parameter_roles == {"weight": "vector", "bias": "vector"}
    assert layer.init_state(2, 9, torch.zeros(0)).shape == (2, 3, 5)
