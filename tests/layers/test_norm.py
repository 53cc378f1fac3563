"""Normalization: definitions, and no warning or slow path under autocast."""

from __future__ import annotations

import torch

from lmzoo.layers.norm import (
    AllHeadsRMSNorm,
    LayerNorm,
    RMSNorm,
    UnitOffsetLayerNorm,
    UnitOffsetRMSNorm,
    l2_normalize,
    qk_norm,
)
from tests.layers.decoded import perturbed, random


def test_rms_norm_equals_its_definition() -> None:
    norm, x = perturbed(RMSNorm(6, eps=1e-3)), random(2, 3, 6)
    expected = norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_rms_norm_without_weight_has_no_parameter() -> None:
    norm, x = RMSNorm(8, eps=0.1, weight=False), torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt())
    assert not [*norm.parameters()]
    norm.init_parameters()
    plain = LayerNorm(8, weight=False, bias=False)
    assert not [*plain.parameters()]
    torch.testing.assert_close(plain(x).mean(-1), torch.zeros(2, dtype=torch.float64))


def test_layer_norm_equals_its_definition() -> None:
    norm, x = perturbed(LayerNorm(6, eps=1e-3)), random(2, 3, 6)
    centered = x - x.mean(-1, keepdim=True)
    expected = norm.weight * centered / (centered.square().mean(-1, keepdim=True) + 1e-3).sqrt() + norm.bias
    torch.testing.assert_close(norm(x), expected)
    assert LayerNorm(6, bias=False).bias is None


def test_unit_offset_layer_norm_adds_one_to_its_weight() -> None:
    norm, x = UnitOffsetLayerNorm(6, eps=1e-3), random(2, 3, 6)
    assert not norm.weight.any()
    perturbed(norm)
    plain = LayerNorm(6, eps=1e-3).to(norm.weight.dtype)
    plain.load_state_dict({"weight": norm.weight + 1, "bias": norm.bias})
    torch.testing.assert_close(norm(x), plain(x))
    assert norm.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert UnitOffsetLayerNorm(6, bias=False)(x).shape == x.shape


def test_rms_norm_keeps_the_dtype_of_its_input_under_autocast() -> None:
    """A warning ("Mismatch dtype ... Cannot dispatch to fused implementation") would fail this test."""
    norm = RMSNorm(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(torch.randn(2, 8, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16


def test_unit_offset_rms_norm_adds_one_to_its_weight() -> None:
    norm, x = UnitOffsetRMSNorm(6, eps=1e-3), random(2, 3, 6)
    assert (norm.weight == 0).all()
    expected = (1 + perturbed(norm).weight) * x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_all_heads_rms_norm_equals_one_norm_over_the_concatenated_heads() -> None:
    norm, x = perturbed(AllHeadsRMSNorm(3, 4, eps=1e-3)), random(2, 5, 3, 4)
    torch.testing.assert_close(norm(x).flatten(-2), norm.norm(x.flatten(-2)))
    assert norm.norm.weight.shape == (12,)


def test_qk_norm_makes_the_norm_that_a_word_names() -> None:
    x = torch.randn(2, 5, 3, 4)
    head, whole = qk_norm("head", 0.1), qk_norm("all", 0.1)
    assert head is not None
    assert whole is not None
    torch.testing.assert_close(head(3, 4)(x), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt())
    torch.testing.assert_close(whole(3, 4)(x), x / (x.square().mean((-2, -1), keepdim=True) + 0.1).sqrt())
    assert qk_norm("none", 0.1) is None


def test_l2_normalize_gives_unit_length_in_float32_or_wider() -> None:
    y = l2_normalize(torch.randn(5, 6, dtype=torch.bfloat16))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(5), atol=1e-5, rtol=0)
    assert l2_normalize(torch.zeros(1, 3)).isfinite().all()


def test_norm_init_parameters_restores_ones_and_zeros() -> None:
    for norm, weight in (
        (perturbed(RMSNorm(4)), 1),
        (perturbed(LayerNorm(4)), 1),
        (perturbed(UnitOffsetRMSNorm(4)), 0),
    ):
        norm.init_parameters()
        assert (norm.weight == weight).all()
        assert getattr(norm, "bias", None) is None or not norm.bias.any()
