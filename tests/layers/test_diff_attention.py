"""Differential attention compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.layers.context import Rope
from lmzoo.layers.diff_attention import DiffAttention
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def by_equations(layer: DiffAttention, x_BTD: Tensor, H: int, G: int, eps: float) -> Tensor:
    """Computes the equations of the card, one head and one query at a time."""
    B, T, _ = x_BTD.shape
    K = layer.head_dim
    q, k, v = layer.project(x_BTD, context(x_BTD))
    strength = (
        torch.exp(layer.lambda_q1 @ layer.lambda_k1) - torch.exp(layer.lambda_q2 @ layer.lambda_k2) + layer.lambda_init
    )
    y_BTHV = torch.zeros(B, T, H, 2 * K, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            value_TV = torch.cat([v[b, :, g], v[b, :, G + g]], dim=-1)
            for t in range(T):
                maps = [
                    torch.softmax(k[b, : t + 1, n * G + g] @ q[b, t, n * H + h] / math.sqrt(K), dim=0) for n in (0, 1)
                ]
                y_V = (maps[0] - strength * maps[1]) @ value_TV[: t + 1]
                y_BTHV[b, t, h] = (1 - layer.lambda_init) * y_V / (y_V.square().mean() + eps).sqrt()
    return layer.out(y_BTHV.flatten(2))


@pytest.mark.parametrize(("H", "G"), [(2, 2), (2, 1), (3, 1)])
def test_diff_attention_equals_its_equations(H: int, G: int) -> None:
    layer = perturbed(DiffAttention(8 * H, H, 0.3, n_kv_heads=G, rope=Rope(), norm_eps=1e-2))
    x = random(2, 7, 8 * H)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x, H, G, 1e-2))


def test_diff_attention_adds_little_to_the_variance() -> None:
    layer, x = perturbed(DiffAttention(16, 2, 0.3)), random(1, 3, 16)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x, 2, 2, 1e-5))


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4), (2, 7)])
def test_diff_attention_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(DiffAttention(16, 2, 0.3, n_kv_heads=1, rope=Rope())), random(2, 9, 16)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_diff_attention_starts_at_lambda_init() -> None:
    torch.manual_seed(0)
    layer = DiffAttention(512, 2, 0.7)
    assert layer.lambda_q1.std().item() == pytest.approx(0.1, rel=0.25)
    with torch.no_grad():
        layer.lambda_q1.zero_()
        layer.lambda_k2.zero_()
    assert layer.strength().item() == pytest.approx(0.7)


def test_diff_attention_declares_the_wider_values_in_its_cost() -> None:
    assert DiffAttention(16, 2, 0.3).flops(10) == 10 * (2 * 16 + 4 * 16)
