"""Linear maps rounded to bfloat16, in a model that keeps its dtype; angles that must not be rounded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.conformance.report import Fault
from lmzoo.conformance.rounding import ANGLE, RoundedLinear, WideAngles

STEP = 2.0**-7  # of numbers from 1 to 2 in bfloat16


def test_rounded_linear_rounds_operands_and_result() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    with RoundedLinear():
        assert F.linear(one * (1 + STEP / 8), one) == 1
        assert F.linear(one, one * (1 + STEP / 8)) == 1
        assert F.linear(one, one, bias=torch.tensor([STEP / 8], dtype=torch.float64)) == 1
        assert F.linear(one * 256, one, torch.ones(1, dtype=torch.float64)) == 256  # 257 has no place in bfloat16
        found = F.linear(one * (1 + STEP), one)
    assert found == 1 + STEP
    assert found.dtype == torch.float64


def test_rounded_linear_leaves_all_else() -> None:
    x = torch.tensor([1 + STEP / 8], dtype=torch.float64)
    with RoundedLinear():
        assert torch.equal(x * 3, x + x + x)
        assert x @ x != 1


def test_wide_angles_refuses_large_angles_in_sixteen_bits_alone() -> None:
    with WideAngles():
        torch.full((2,), 1000.0).cos()
        torch.full((2,), ANGLE - 1, dtype=torch.bfloat16).sin()
        torch.cos(torch.zeros(0, dtype=torch.bfloat16))
        for wave in (torch.cos, torch.Tensor.sin):
            with pytest.raises(Fault, match=r"an angle of 100 is taken in torch\.bfloat16"):
                wave(torch.tensor([-100.0, 3.0], dtype=torch.bfloat16))
