"""The head with bounded logits."""

from __future__ import annotations

import torch

from lmzoo.layers.capped_head import CappedHead
from lmzoo.layers.linear import Linear


def test_capped_head_bounds_logits_and_keeps_small_ones() -> None:
    linear = Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
    logits_V = CappedHead(linear, 5.0)(torch.tensor([1e-3, -1e6]))
    torch.testing.assert_close(logits_V, torch.tensor([1e-3, -5.0]))
