"""Layer normalization of each head, compared with torch's group normalization."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.head_norm import HeadNorm
from tests.layers.decoded import perturbed, random


@pytest.mark.parametrize("bias", [True, False])
def test_head_norm_is_group_norm(bias: bool) -> None:
    norm, x_BTHK = perturbed(HeadNorm(12, 1e-3, bias=bias)), random(2, 5, 3, 4)
    expected = F.group_norm(x_BTHK.reshape(10, 12), 3, norm.weight, norm.bias, eps=1e-3)
    torch.testing.assert_close(norm(x_BTHK), expected.view(2, 5, 12))


def test_head_norm_computes_bfloat16_in_float32() -> None:
    x_BTHK = random(2, 5, 3, 4).bfloat16()
    assert HeadNorm(12)(x_BTHK).dtype == torch.float32
