"""Gated DeltaNet's mixer compared with a loop over its equations and with Qwen3-Next's, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.ops.kernels import NO_KERNEL, Kernel
from tests.backbones.against_transformers import perturb
from tests.backbones.references import assert_close
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def by_equations(layer: GatedDelta, x_BTD: Tensor, largest_beta: float) -> Tensor:
    """Computes the equations of the card, one token and one head at a time."""
    B, T, _ = x_BTD.shape
    H, K, V = layer.n_heads, layer.key_dim, layer.value_dim
    taps = layer.conv.weight
    padded = F.pad(layer.qkv(x_BTD), (0, 0, taps.shape[1] - 1, 0))
    y_BTHV = torch.zeros(B, T, H, V, dtype=x_BTD.dtype)
    for b in range(B):
        for h in range(H):
            S_KV = torch.zeros(K, V, dtype=x_BTD.dtype)
            for t in range(T):
                x_D, mixed = x_BTD[b, t], F.silu((padded[b, t : t + taps.shape[1]] * taps.T).sum(0))
                q, k, v = (part.view(H, -1)[h] for part in mixed.split([H * K, H * K, H * V]))
                q, k = q / (q @ q + 1e-6).sqrt() / K**0.5, k / (k @ k + 1e-6).sqrt()
                beta = largest_beta * torch.sigmoid(layer.beta.weight[h] @ x_D)
                step = torch.log1p(torch.exp(layer.decay.weight[h] @ x_D + layer.dt_bias[h]))
                S_KV = torch.exp(-layer.A_log[h].exp() * step) * S_KV
                S_KV = S_KV + beta * torch.outer(k, v - S_KV.T @ k)
                y_BTHV[b, t, h] = layer.norm(S_KV.T @ q) * F.silu(layer.gate.weight.view(H, V, -1)[h] @ x_D)
    return layer.out(y_BTHV.flatten(2))


@pytest.mark.parametrize("negative_eigenvalues", [False, True])
def test_gated_delta_equals_its_equations(negative_eigenvalues: bool) -> None:
    layer = perturbed(GatedDelta(8, 2, 3, 5, d_conv=3, negative_eigenvalues=negative_eigenvalues))
    x = random(2, 9, 8)
    largest_beta = 2.0 if negative_eigenvalues else 1.0
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x, largest_beta))


def test_gated_delta_with_shared_keys_equals_heads_with_the_same_keys() -> None:
    shared, x = perturbed(GatedDelta(8, 4, 3, 5, n_key_heads=2)), random(2, 9, 8)
    whole = perturbed(GatedDelta(8, 4, 3, 5))
    weights = shared.state_dict()
    for name in ("qkv.weight", "conv.weight"):
        q, k, v = weights[name].split([6, 6, 20])
        twice = (part.unflatten(0, (2, 3)).repeat_interleave(2, dim=0).flatten(0, 1) for part in (q, k))
        weights[name] = torch.cat([*twice, v])
    whole.load_state_dict(weights)
    torch.testing.assert_close(in_one_call(shared, x), in_one_call(whole, x))
    torch.testing.assert_close(in_pieces(shared, x, 4, 1, 4), in_one_call(whole, x))


def test_gated_delta_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(GatedDelta(8, 2, 3, 5)), random(2, 92, 8)
    for lengths in ((70, 1, 1, 20), (1,) * 5 + (87,)):
        torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_gated_delta_equals_qwen3_next() -> None:
    """Their projections are ordered by head: its query, key, value and gate, and its beta and decay."""
    D, H, K, V = 16, 3, 6, 10
    config = Qwen3NextConfig(
        hidden_size=D,
        linear_num_value_heads=H,
        linear_num_key_heads=H,
        linear_key_head_dim=K,
        linear_value_head_dim=V,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        rms_norm_eps=1e-5,
    )
    theirs = perturb(Qwen3NextGatedDeltaNet(config, 0))
    weights = theirs.state_dict()
    q, k, v, gate = weights["in_proj_qkvz.weight"].view(H, -1, D).split([K, K, V, V], dim=1)
    beta, decay = weights["in_proj_ba.weight"].view(H, 2, D).unbind(1)
    ours = GatedDelta(D, H, K, V)
    ours.load_state_dict(
        {
            "qkv.weight": torch.cat([part.flatten(0, 1) for part in (q, k, v)]),
            "gate.weight": gate.flatten(0, 1),
            "beta.weight": beta,
            "decay.weight": decay,
            "conv.weight": weights["conv1d.weight"][:, 0],
            **{name: weights[name] for name in ("A_log", "dt_bias", "norm.weight")},
            "out.weight": weights["out_proj.weight"],
        }
    )
    x = random(2, 70, D).float()
    with torch.no_grad():
        expected = theirs(x)
    assert_close(in_one_call(ours, x), expected, "output")


def test_gated_delta_decays_are_float32_in_a_bfloat16_model() -> None:
    layer = GatedDelta(8, 2, 3, 5).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.memory.dtype, state.tail.dtype) == (torch.float32, torch.bfloat16)
    assert state.memory.shape == (3, 2, 3, 5)
    assert layer.log_decay(torch.ones(1, 1, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_gated_delta_initialization_follows_the_authors() -> None:
    layer = GatedDelta(8, 500, 1, 1)
    rate, step = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 0.01 <= rate.min() < 0.5
    assert 15.5 < rate.max() <= 16.001
    assert 1e-3 * 0.999 < step.min() < 1.2e-3
    assert 0.09 < step.max() < 0.1001


def test_gated_delta_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(GatedDelta(8, 2, 3, 5), random(1, 7, 8))
    assert declared == counted


def test_gated_delta_names_its_largest_beta_to_the_choice_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def find_kernel(*_: object, largest_beta: float) -> Kernel:
        seen.append(largest_beta)
        return NO_KERNEL

    monkeypatch.setattr("lmzoo.ops.gated_delta_rule.find_kernel", find_kernel)
    for layer in (
        GatedDelta(8, 2, 4, 4, negative_eigenvalues=False),
        GatedDelta(8, 2, 4, 4, negative_eigenvalues=True),
    ):
        in_one_call(layer, torch.ones(1, 3, 8))
    assert seen == [1.0, 2.0]
