"""RetNet compared with its equations, with the retention of flash-linear-attention, which is a sum over all tokens.

tests/layers/test_retention.py compares the mixer with a loop over its recurrence.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.layers.retention import Retention
from tests.backbones.references import Weights, assert_equals_reference
from tests.ops import fla_naive

retention = fla_naive.load("ops/retention/naive.py").naive_retention


def rotated(x_BTHK: Tensor, theta: float) -> Tensor:
    """Multiplies the features of each head, as complex numbers, by exp(i t frequency)."""
    T, K = x_BTHK.shape[1], x_BTHK.shape[3]
    frequency_K = theta ** (-torch.arange(0, K, 2) / K)
    turn_T1K = torch.exp(1j * torch.arange(T)[:, None, None] * frequency_K)
    turned = torch.complex(*x_BTHK.chunk(2, dim=-1)) * turn_T1K
    return torch.cat([turned.real, turned.imag], dim=-1)


def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits by the equations of the paper, section 2."""
    D, H, eps = config.d_model, config.n_heads, config.norm_eps

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    x = weights["tokens.weight"][idx]
    for i in range(config.n_layers):
        inner, h = f"blocks.{i}.0.inner", norm(x, f"blocks.{i}.0.before")
        q, k = (h @ w.T for w in weights[f"{inner}.qk.weight"].split(D))
        v, gate = (h @ w.T for w in weights[f"{inner}.v_gate.weight"].split(2 * D))
        q, k = (rotated(z.unflatten(-1, (H, D // H)), config.rope_theta) for z in (q, k))
        y = retention(q.transpose(1, 2), k.transpose(1, 2), v.unflatten(-1, (H, 2 * D // H)).transpose(1, 2))
        y = y.transpose(1, 2)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + eps).sqrt()
        y = y.flatten(2) * weights[f"{inner}.norm.weight"] + weights[f"{inner}.norm.bias"]
        x = x + (gate * gate.sigmoid() * y) @ weights[f"{inner}.out.weight"].T
        h = norm(x, f"blocks.{i}.1.before")
        x = x + F.gelu(h @ weights[f"blocks.{i}.1.inner.up.weight"].T) @ weights[f"blocks.{i}.1.inner.down.weight"].T
    return norm(x, "norm") @ weights["head.weight"].T


def test_retnet_logits_gradients_and_decoding_equal_the_reference() -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16}
    assert_equals_reference("retnet", reference, T=40, rope_theta=100.0, norm_eps=1e-4, **sizes)


def test_retnet_passes_its_options_to_the_layers() -> None:
    model = lmzoo.create_model("retnet", vocab_size=13, d_model=32, n_heads=2, d_ff=40, rope_theta=50.0, norm_eps=1e-3)
    (mixer, mlp), *_ = model.blocks
    assert isinstance(mixer.inner, Retention)
    assert (mixer.inner.n_heads, mixer.inner.rope.theta, mixer.inner.norm.eps) == (2, 50.0, 1e-3)
    assert mlp.inner.d_ff == 40


def test_retnet_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("retnet", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (4 * 8 * 16)
