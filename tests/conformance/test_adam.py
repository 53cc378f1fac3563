"""Adam, compared with the formulas of the paper."""

from __future__ import annotations

import pytest
import torch

from lmzoo.conformance.adam import Adam


def test_adam_follows_the_paper() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Adam([parameter], learning_rate=0.5)
    mean = square = expected = 0.0
    for step, gradient in enumerate((3e-8, 2.0, -1.0), start=1):  # the first is as small as the 1e-8 in the quotient
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        expected -= 0.5 * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
        assert parameter.item() == pytest.approx(expected, rel=1e-9)
