"""DeltaProduct's mixer compared with a loop over its equations, and decoding in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.delta_product import DeltaProduct
from tests.layers.decoded import in_one_call, in_pieces, perturbed, random

FORMS: dict[str, dict[str, Any]] = {
    "gated": {},
    "plain": {"gated": False},
    "positive": {"negative_eigenvalues": False, "n_steps": 3},
    "one": {"n_steps": 1},
}


def by_equations(layer: DeltaProduct, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token, one head and one step at a time."""
    B, T, _ = x_BTD.shape
    N, H, K, V = layer.n_steps, layer.n_heads, layer.key_dim, layer.value_dim
    taps = layer.conv.weight
    padded = F.pad(layer.qkv(x_BTD), (0, 0, taps.shape[1] - 1, 0))
    y_BTHV = torch.zeros(B, T, H, V, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, V, dtype=x_BTD.dtype)
            for t in range(T):
                x_D, mixed = x_BTD[b, t], F.silu((padded[b, t : t + taps.shape[1]] * taps.T).sum(0))
                q_K = mixed[h * K : (h + 1) * K]
                if layer.gated:
                    step = torch.log1p(torch.exp(layer.decay.weight[h] @ x_D + layer.dt_bias[h]))
                    S_KV = torch.exp(-layer.A_log[h].exp() * step) * S_KV
                for n in range(N):
                    key = mixed[H * K * (1 + n) + h * K :][:K]
                    value = mixed[H * K * (1 + N) + H * V * n + h * V :][:V]
                    key = key / (key @ key + 1e-6).sqrt()
                    beta = layer.largest_beta * torch.sigmoid(layer.beta.weight[n * H + h] @ x_D)
                    S_KV = S_KV + beta * torch.outer(key, value - S_KV.T @ key)
                y_V = S_KV.T @ (q_K / (q_K @ q_K + 1e-6).sqrt() / K**0.5)
                y_BTHV[b, t, h] = layer.norm(y_V) * F.silu(layer.gate.weight[h * V : (h + 1) * V] @ x_D)
    return layer.out(y_BTHV.flatten(2))


@pytest.mark.parametrize("form", FORMS)
def test_delta_product_equals_its_equations(form: str) -> None:
    layer = perturbed(DeltaProduct(8, 2, 3, 5, d_conv=3, **FORMS[form]))
    x = random(2, 9, 8)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("form", FORMS)
def test_delta_product_in_pieces_equals_one_call(form: str) -> None:
    layer, x = perturbed(DeltaProduct(8, 2, 3, 5, **FORMS[form])), random(2, 50, 8)
    for lengths in ((30, 1, 1, 18), (1,) * 5 + (45,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_delta_product_decays_are_float32_in_a_bfloat16_model() -> None:
    layer = DeltaProduct(8, 2, 3, 5).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.memory.dtype, state.tail.dtype) == (torch.float32, torch.bfloat16)
    assert (state.memory.shape, state.tail.shape) == ((3, 2, 3, 5), (3, 3, 2 * (3 + 2 * (3 + 5))))
    assert layer.log_decay(torch.ones(1, 1, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert layer.keep_float32 == ("A_log", "dt_bias")


def test_delta_product_without_gates_has_no_decays() -> None:
    names = {name for name, _ in DeltaProduct(8, 2, 3, 5, gated=False).named_parameters()}
    assert not names & {"A_log", "dt_bias", "decay.weight"}
