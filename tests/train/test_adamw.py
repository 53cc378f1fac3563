"""Tests that AdamW without the compiler's wrappers updates as torch's does, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from lmzoo.train.adamw import AdamW
from tests.helpers import seeded


def trained(kind: type[optim.AdamW], *, fused: bool) -> list[torch.Tensor]:
    """Train two matrices in two groups; the second one has no gradient in one step."""
    weights = [nn.Parameter(torch.randn(3, 4, generator=seeded(seed))) for seed in (0, 1)]
    groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}]
    optimizer = kind(groups, lr=0.01, betas=(0.9, 0.95), fused=fused)
    for step in range(4):
        for weight in weights[: 1 + (step != 2)]:
            ((step + 1) * weight).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in weights)
    return weights


@pytest.mark.parametrize("fused", [True, False])  # the second form writes to the weights by autograd's operators
def test_adamw_updates_as_torch_does(fused: bool) -> None:
    for ours, theirs in zip(trained(AdamW, fused=fused), trained(optim.AdamW, fused=fused), strict=True):
        assert torch.equal(ours, theirs)
