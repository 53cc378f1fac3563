"""WaveNet's layer compared with torch's convolution, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.layers.gated_conv import SKIPS, GatedConv
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def by_equations(layer: GatedConv, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the output (of a last layer: its skip alone) and the skip connection by the equations of the card."""
    weight_EDW = rearrange(layer.conv.weight, "e (w d) -> e d w", w=layer.width)
    padded = F.pad(x_BTD.transpose(1, 2), (layer.reach - 1, 0))
    conv_BTE = F.conv1d(padded, weight_EDW, layer.conv.bias, dilation=layer.dilation).transpose(1, 2)
    D, S = layer.d_model, layer.d_skip
    z_BTD = torch.tanh(conv_BTE[..., :D]) * torch.sigmoid(conv_BTE[..., D:])
    out_BTX = z_BTD @ layer.out.weight.T + layer.out.bias
    return (out_BTX[..., :S] if layer.last else x_BTD + out_BTX[..., S:]), out_BTX[..., :S]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("width", "dilation"), [(2, 4), (3, 1)])
def test_gated_conv_equals_its_equations(width: int, dilation: int, last: bool) -> None:
    layer, x = perturbed(GatedConv(5, 7, width, dilation, last=last)), random(2, 9, 5)
    ctx = context(x)
    before = ctx.carry[SKIPS] = random(2, 9, 7, seed=3)
    y, skip = by_equations(layer, x)
    y = before + y if last else y
    with torch.no_grad():
        torch.testing.assert_close(layer(x, None, ctx)[0], y, atol=1e-12, rtol=0)
    torch.testing.assert_close(ctx.carry[SKIPS], before + skip, atol=1e-12, rtol=0)


@pytest.mark.parametrize("lengths", [(1,) * 12, (1, 3, 8), (11, 1)])
def test_gated_conv_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(GatedConv(5, 7, 2, 4)), random(2, 12, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_gated_conv_declares_its_reach_and_keeps_as_many_inputs() -> None:
    layer = GatedConv(5, 7, 3, 4)
    assert layer.reach == 9
    assert layer.init_state(2, 99, torch.zeros(0)).shape == (2, 8, 5)
