"""The linear transformer compared with its equations around the sum of flash-linear-attention.

tests/layers/test_linear_attention.py compares the mixer with attention as a matrix of weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.layers.linear_attention import LinearAttention
from tests.backbones.references import Weights, assert_equals_reference
from tests.ops import fla_naive

linear_attention = fla_naive.load("ops/linear_attn/naive.py").naive_recurrent_linear_attn


def sinusoids(T: int, D: int) -> Tensor:
    """Returns sin and cos of t 10000^(-2i/D) for i < D/2, all sines first."""
    angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits by the equations of the paper, section 3."""
    D, H = config.d_model, config.n_heads

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"], config.norm_eps)

    x = weights["tokens.weight"][idx] + 0.02 * sinusoids(idx.shape[1], D)
    for i in range(config.n_layers):
        h = norm(x, f"blocks.{i}.0.before")
        q, k, v = ((h @ w.T).unflatten(-1, (H, -1)) for w in weights[f"blocks.{i}.0.inner.qkv.weight"].split(D))
        y, _ = linear_attention(F.elu(q) + 1, F.elu(k) + 1, v, scale=1.0, normalize=True)
        x = x + y.flatten(2) @ weights[f"blocks.{i}.0.inner.out.weight"].T
        h = norm(x, f"blocks.{i}.1.before")
        x = x + F.gelu(h @ weights[f"blocks.{i}.1.inner.up.weight"].T) @ weights[f"blocks.{i}.1.inner.down.weight"].T
    return norm(x, "norm") @ weights["head.weight"].T


def test_linear_attention_logits_gradients_and_decoding_equal_the_reference() -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16}
    assert_equals_reference("linear_attention", reference, T=40, norm_eps=1e-4, **sizes)


def test_linear_attention_passes_its_options_to_the_layers() -> None:
    model = lmzoo.create_model("linear_attention", vocab_size=13, d_model=32, n_heads=2, norm_eps=1e-3)
    (mixer, mlp), *_ = model.blocks
    assert isinstance(mixer.inner, LinearAttention)
    assert (mixer.inner.n_heads, mixer.before.eps, mlp.inner.d_ff) == (2, 1e-3, 128)


def test_linear_attention_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("linear_attention", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (4 * 8 * 9)
