"""The feed-forward layer: gated and plain."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.mlp import MLP, squared_relu, swiglu_width
from tests.layers.decoded import perturbed, random


def test_mlp_gated_multiplies_gate_and_up() -> None:
    layer, x = perturbed(MLP(4, 6)), random(2, 3, 4)
    gate, up = layer.up.weight[:6], layer.up.weight[6:]
    torch.testing.assert_close(layer(x), (F.silu(x @ gate.T) * (x @ up.T)) @ layer.down.weight.T)


def test_mlp_plain_has_one_product_and_biases() -> None:
    layer, x = perturbed(MLP(4, 6, F.gelu, gated=False, bias=True)), random(2, 3, 4)
    hidden = F.gelu(x @ layer.up.weight.T + layer.up.bias)
    torch.testing.assert_close(layer(x), hidden @ layer.down.weight.T + layer.down.bias)


def test_squared_relu_squares_what_is_positive() -> None:
    assert squared_relu(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 9.0]


@pytest.mark.parametrize(("d_model", "d_ff"), [(12, 32), (128, 352), (384, 1024), (1024, 2752)])
def test_swiglu_width_is_a_multiple_of_32(d_model: int, d_ff: int) -> None:
    assert swiglu_width(d_model) == d_ff
