"""DeltaNet's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.ops.delta_rule import delta_rule
from lmzoo.ops.kernels import NO_KERNEL, Kernel
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: DeltaRule, x_BTD: Tensor, largest_beta: float) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, D = x_BTD.shape
    H, K = layer.n_heads, layer.head_dim
    qkv = x_BTD @ layer.qkv.weight.T
    taps = layer.conv.weight
    padded = F.pad(qkv, (0, 0, taps.shape[1] - 1, 0))
    y_BTD = torch.zeros(B, T, D, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, K, dtype=x_BTD.dtype)
            for t in range(T):
                mixed = F.silu((padded[b, t : t + taps.shape[1]] * taps.T).sum(0))
                q, k, v = (part[h * K : (h + 1) * K] for part in mixed.chunk(3))
                q, k = q / (q @ q + 1e-6).sqrt() / K**0.5, k / (k @ k + 1e-6).sqrt()
                beta = largest_beta * torch.sigmoid(layer.beta.weight[h] @ x_BTD[b, t])
                S_KV = S_KV + beta * torch.outer(k, v - S_KV.T @ k)
                y_K = S_KV.T @ q
                y_BTD[b, t, h * K : (h + 1) * K] = layer.norm.weight * y_K / (y_K.square().mean() + 1e-5).sqrt()
    return y_BTD @ layer.out.weight.T


@pytest.mark.parametrize(
    ("options", "largest_beta"), [({"d_conv": 3}, 1.0), ({"d_conv": 3, "negative_eigenvalues": True}, 2.0)]
)
def test_delta_rule_equals_its_equations(options: dict[str, Any], largest_beta: float) -> None:
    layer, x = perturbed(DeltaRule(8, 2, **options)), random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x, largest_beta))


@pytest.mark.parametrize("lengths", [(70, 1, 1, 20), (1,) * 5 + (87,), (92,)])
def test_delta_rule_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(DeltaRule(8, 2)), random(2, 92, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_delta_rule_replaces_the_value_under_a_key() -> None:
    """With beta = 1, reading the last key gives the last value, whatever was stored before."""
    layer = perturbed(DeltaRule(8, 2))
    x = random(1, 6, 8)
    _, state = layer(x, layer.init_state(1, 6, x), context(x))
    k_BTHK = F.normalize(torch.ones(1, 1, 2, 4, dtype=torch.float64), dim=-1)
    v_BTHK = random(1, 1, 2, 4, seed=5)
    y_BTHK, _ = delta_rule(k_BTHK, k_BTHK, v_BTHK, torch.ones(1, 1, 2, dtype=torch.float64), state.memory)
    torch.testing.assert_close(y_BTHK, v_BTHK)


def test_delta_rule_state_is_float32_in_a_bfloat16_model() -> None:
    layer = DeltaRule(8, 2).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert state.memory.dtype == torch.float32
    assert state.tail.dtype == torch.bfloat16
    assert state.memory.shape == (3, 2, 4, 4)
    assert state.tail.shape == (3, 3, 24)  # filters of four tokens


def test_delta_rule_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(DeltaRule(8, 2), random(1, 7, 8))
    assert declared == counted


def test_delta_rule_names_its_largest_beta_to_the_choice_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def find_kernel(*_: object, largest_beta: float) -> Kernel:
        seen.append(largest_beta)
        return NO_KERNEL

    monkeypatch.setattr("lmzoo.ops.delta_rule.find_kernel", find_kernel)
    for layer in (DeltaRule(8, 2, negative_eigenvalues=False), DeltaRule(8, 2, negative_eigenvalues=True)):
        in_one_call(layer, torch.ones(1, 3, 8))
    assert seen == [1.0, 2.0]
