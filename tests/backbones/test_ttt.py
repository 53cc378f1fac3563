"""TTT compared with the paper's equations, in which autograd takes the inner gradient steps.

tests/ops/test_ttt.py compares the recurrence with flash-linear-attention's, tests/layers/test_ttt.py the mixer.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.ttt import TTT
from tests.backbones.references import Weights, assert_equals_reference, mixer_model


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer; autograd differentiates the sum of the losses of all rows and heads."""
    (B, T, D), H, C = x.shape, config.n_heads, config.mini_batch
    K, eps = D // H, config.norm_eps
    qk, v, gate = (x @ w.T for w in weights["projections.weight"].split(D))
    q, k = (convolved(qk, weights[f"{name}_filter"], weights[f"{name}_bias"]) for name in ("q", "k"))
    q, k, v = (part.unflatten(-1, (H, K)) for part in (q, k, v))
    angles = torch.outer(torch.arange(T) % C, config.rope_theta ** (-torch.arange(0, K, 2) / K))[:, None]
    q, k = (turned(part, angles.cos(), angles.sin()) for part in (q, k))
    z = x @ weights["rate.weight"].T + weights["rate.bias"]
    rate = z.sigmoid() * config.base_rate / (K * C)

    def f(k: Tensor, W: Tensor, b: Tensor) -> Tensor:
        read = torch.einsum("bhk,bhkv->bhv", k, W) + b
        centered = read - read.mean(-1, keepdim=True)
        normal = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
        return k + weights["inner_weight"] * normal + weights["inner_bias"]

    W, b = weights["first_weight"].repeat(B, 1, 1, 1), weights["first_bias"].repeat(B, 1, 1)
    step_W, step_b = 0 * W, 0 * b
    y = []
    for t in range(T):
        if t % C == 0:
            start = W, b
        loss = (f(k[:, t], *start) - v[:, t]).square().sum() / 2
        grad_W, grad_b = torch.autograd.grad(loss, start, create_graph=True)
        keep, momentum = torch.ones(B, H), torch.zeros(B, H)
        if config.titans:
            forget, momentum = (x[:, t] @ weights["decays.weight"].T + weights["decays.bias"]).sigmoid().split(H, dim=1)
            keep = 1 - forget
        step_W = momentum[..., None, None] * step_W + rate[:, t, :, None, None] * grad_W
        step_b = momentum[..., None] * step_b + rate[:, t, :, None] * grad_b
        W, b = keep[..., None, None] * W - step_W, keep[..., None] * b - step_b
        y.append(f(q[:, t], W, b))
    normal = F.layer_norm(torch.stack(y, dim=1).flatten(2), (D,), weights["norm.weight"], weights["norm.bias"], eps)
    return (F.gelu(gate, approximate="tanh") * normal) @ weights["out.weight"].T


def convolved(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Applies a causal filter to each feature."""
    D, width = taps.shape
    return F.conv1d(F.pad(x.mT, (width - 1, 0)), taps[:, None], bias, groups=D).mT


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs of features i and i + K/2."""
    half = torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], dim=-1)
    return x * torch.cat([cos, cos], dim=-1) + half * torch.cat([sin, sin], dim=-1)


@pytest.mark.parametrize("titans", [False, True])
def test_ttt_logits_gradients_and_decoding_equal_the_reference(titans: bool) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16}
    assert_equals_reference(
        "ttt",
        lambda weights, idx, config: mixer_model(weights, idx, config, mixer),
        T=28,
        titans=titans,
        mini_batch=6,
        base_rate=4.0,
        d_conv=3,
        rope_theta=20.0,
        norm_eps=1e-3,
        **sizes,
    )


def test_ttt_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "mini_batch": 5, "base_rate": 3.0, "d_conv": 2, "rope_theta": 50.0}
    (mixer, _), *_ = lmzoo.create_model("ttt", vocab_size=13, titans=True, norm_eps=1e-3, **sizes).blocks
    assert isinstance(mixer.inner, TTT)
    assert (mixer.inner.n_heads, mixer.inner.mini_batch, mixer.inner.base_rate) == (2, 5, 3.0)
    assert mixer.inner.q_filter.shape == (32, 2)
    assert (mixer.inner.rope_theta, mixer.inner.norm.eps, mixer.inner.norm_eps) == (50.0, 1e-3, 1e-3)
    assert mixer.inner.decays is not None


def test_ttt_config_refuses_a_mini_batch_of_no_tokens() -> None:
    with pytest.raises(ConfigError, match="mini_batch=0 must be"):
        lmzoo.create_model("ttt", vocab_size=13, mini_batch=0)


@pytest.mark.parametrize(("titans", "matrices"), [(False, 2), (True, 3)])
def test_ttt_state_has_a_fixed_size(titans: bool, matrices: int) -> None:
    model = lmzoo.create_model("ttt", vocab_size=13, d_model=32, n_layers=2, n_heads=4, titans=titans)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (3 * 32 + matrices * 4 * 9 * 8)
