"""gpt-oss's experts compared with their definition for each token."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.clamped_experts import ClampedExperts
from tests.layers.decoded import perturbed, random


def by_definition(layer: ClampedExperts, x_D: Tensor) -> Tensor:
    """Computes the equations of the card for one token."""
    logits_E = layer.router.weight @ x_D + layer.router.bias
    chosen = logits_E.topk(2).indices
    y_D = torch.zeros_like(x_D)
    for e, weight in zip(chosen, logits_E[chosen].softmax(0), strict=True):
        gate, up = (layer.up[e] @ x_D + layer.up_bias[e]).chunk(2)
        gate, up = gate.clamp(max=0.5), up.clamp(min=-0.5, max=0.5)
        inner = (up + 1) * gate / (1 + torch.exp(-1.702 * gate))
        y_D = y_D + weight * (layer.down[e] @ inner + layer.down_bias[e])
    return y_D


def test_clamped_experts_equal_their_definition_for_each_token() -> None:
    layer, x = perturbed(ClampedExperts(6, 5, 4, 2, limit=0.5)), random(3, 7, 6)
    expected = torch.stack([by_definition(layer, x_D) for x_D in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(layer(x), expected)
    inner = x.flatten(0, 1) @ layer.up.flatten(0, 1).T + layer.up_bias.flatten()
    assert (inner < -0.5).any(), "both limits must matter"
    assert (inner > 0.5).any()


def test_clamped_experts_count_one_share_of_each_bias() -> None:
    layer = ClampedExperts(6, 5, 4, 2)
    assert layer.active == dict.fromkeys(("up", "down", "up_bias", "down_bias"), 0.5)
    assert layer.parameter_roles["up_bias"] == layer.parameter_roles["down_bias"] == "vector"
    assert not layer.up_bias.any()
