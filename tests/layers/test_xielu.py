"""Tests of xIELU against the form of its equation, and its derivative at zero."""

from __future__ import annotations

import torch
from torch import nn

from lmzoo.layers.xielu import XIELU


def test_xielu_equals_its_equation() -> None:
    """Follows arXiv 2411.13010, with slopes of 0.8 at first; `eps` shifts the values near 0 by about as much."""
    layer, x = XIELU().double(), torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = torch.where(x > 0, 0.8 * x**2, 0.8 * (torch.expm1(x) - x)) + 0.5 * x
    torch.testing.assert_close(layer(x), expected, atol=2e-6, rtol=0)
    with torch.no_grad():
        layer.alpha_p.fill_(0.3)
        layer.alpha_n.fill_(-0.2)
    a, b = nn.functional.softplus(torch.tensor(0.3)), 0.5 + nn.functional.softplus(torch.tensor(-0.2))
    expected = torch.where(x > 0, a * x**2, b * (torch.expm1(x) - x)) + 0.5 * x
    torch.testing.assert_close(layer(x), expected, atol=2e-6, rtol=0)


def test_xielu_trains_its_slopes_alone() -> None:
    layer = XIELU()
    layer(torch.linspace(-2, 2, 9)).sum().backward()
    trained = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert trained == {"alpha_p", "alpha_n"}
    assert {name for name, parameter in layer.named_parameters() if not parameter.requires_grad} == {"beta", "eps"}
