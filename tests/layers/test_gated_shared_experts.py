"""Qwen's experts: the definition token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.gated_shared_experts import GatedSharedExperts
from tests.layers.decoded import perturbed, random


def swiglu(up: Tensor, down: Tensor, x_D: Tensor) -> Tensor:
    """Computes a gated feed-forward layer whose first rows of `up` are the gate."""
    gate, value = (up @ x_D).chunk(2)
    return down @ (F.silu(gate) * value)


def test_gated_shared_experts_equal_their_definition() -> None:
    layer, x = perturbed(GatedSharedExperts(6, 5, 4, 2, 7, normalize=False)), random(2, 3, 6)
    y = layer(x)
    for b in range(2):
        for t in range(3):
            p = torch.softmax(layer.router.weight @ x[b, t], dim=0)
            chosen = p.argsort(descending=True)[:2]
            expected = sum(p[e] * swiglu(layer.up[e], layer.down[e], x[b, t]) for e in chosen)
            gate = torch.sigmoid(layer.shared_gate.weight[0] @ x[b, t])
            expected = expected + gate * swiglu(layer.shared.up.weight, layer.shared.down.weight, x[b, t])
            torch.testing.assert_close(y[b, t], expected)


def test_gated_shared_experts_pass_their_options_on() -> None:
    layer = GatedSharedExperts(6, 5, 4, 2, 7, normalize=False, balance_loss=0.3)
    assert (layer.normalize, layer.balance_loss, layer.shared.down.weight.shape) == (False, 0.3, (6, 7))
