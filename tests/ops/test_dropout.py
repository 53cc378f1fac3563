"""Tests of the dropout dispatcher: one mask in forward and backward, drawn from the seed."""

from __future__ import annotations

import torch

from lmzoo.ops.dropout import dropout


def test_dropout_is_reproducible_and_its_gradient_has_the_same_mask() -> None:
    x = torch.ones(5, 7, requires_grad=True)
    torch.manual_seed(3)
    y = dropout(x, 0.5)
    torch.manual_seed(3)
    torch.testing.assert_close(y, dropout(x, 0.5), rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], y.detach(), rtol=0, atol=0)
