"""Tests of the dropout dispatcher: one mask in forward and backward, drawn from the seed."""

from __future__ import annotations

import torch

from lmzoo.ops.dropout import dropout


def test_a_seed_gives_the_same_again_and_a_gradient_the_same_noise() -> None:
    x = torch.ones(5, 7, requires_grad=True)
    torch.manual_seed(3)
    y = dropout(x, 0.5)
    torch.manual_seed(3)
    torch.testing.assert_close(y, dropout(x, 0.5), rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], y.detach(), rtol=0, atol=0)
