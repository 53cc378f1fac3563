"""Normalization of each head, compared with torch's group normalization and with the definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.layers.head_norm import HeadLayerNorm, HeadNorm, HeadRMSNorm
from tests.layers.decoded import perturbed, random


@pytest.mark.parametrize("bias", [True, False])
def test_head_norm_is_group_norm(bias: bool) -> None:
    norm, x_BTHK = perturbed(HeadNorm(12, 1e-3, bias=bias)), random(2, 5, 3, 4)
    assert (norm.bias is not None) == bias
    expected = F.group_norm(x_BTHK.reshape(10, 12), 3, norm.weight, norm.bias, eps=1e-3)
    torch.testing.assert_close(norm(x_BTHK), expected.view(2, 5, 12))


def test_head_norm_starts_with_mean_0_and_variance_1() -> None:
    norm, x_BTHK = HeadNorm(12), random(2, 5, 3, 4)
    assert norm.reach == 1
    assert norm.bias is not None
    torch.testing.assert_close(norm(x_BTHK), F.layer_norm(x_BTHK, (4,)).flatten(2))


def test_head_norm_computes_bfloat16_in_float32() -> None:
    x_BTHK = random(2, 5, 3, 4).bfloat16()
    assert HeadNorm(12)(x_BTHK).dtype == torch.float32


def test_head_rms_norm_has_a_weight_for_every_feature_of_every_head() -> None:
    norm, x_BTHK = HeadRMSNorm(3, 4, 1e-3), random(2, 5, 3, 4)
    assert norm.reach == 1
    assert (norm.weight == 1).all()
    norm = perturbed(norm)
    rms = (x_BTHK.square().mean(dim=-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x_BTHK), x_BTHK / rms * norm.weight)


def test_head_layer_norm_has_a_weight_for_each_head() -> None:
    norm = HeadLayerNorm(3, 4, eps=0.1)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(12.0).view(3, 4))
    x_BTHK = random(2, 5, 3, 4)
    for h in range(3):
        expected = F.layer_norm(x_BTHK[:, :, h], (4,), norm.weight[h].to(x_BTHK.dtype), None, 0.1)
        torch.testing.assert_close(norm(x_BTHK)[:, :, h], expected)
