"""DeltaProduct compared with its equations around the recurrence of flash-linear-attention; its options and state.

tests/layers/test_delta_product.py compares the mixer with a loop over its equations.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.delta_product import DeltaProduct
from tests.backbones.references import Weights, assert_equals_reference, mixer_model, rms
from tests.ops import fla_naive

recurrence = fla_naive.load("ops/gated_delta_product/naive.py").naive_recurrent_gated_delta_product


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer with separate projections and a convolution each, and keys and values in sequence."""
    N, H, K, V = config.n_steps, config.n_heads, config.key_dim, config.value_dim
    widths = [H * K, N * H * K, N * H * V]
    projections, filters = (weights[name].split(widths) for name in ("qkv.weight", "conv.weight"))
    parts = []
    for w, taps in zip(projections, filters, strict=True):
        padded = F.pad((x @ w.T).mT, (config.d_conv - 1, 0))
        parts.append(F.silu(F.conv1d(padded, taps[:, None], groups=len(taps))).mT)
    q, k, v = (part.unflatten(2, (steps, H, -1)).flatten(1, 2) for part, steps in zip(parts, (1, N, N), strict=True))
    q, k = (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for part in (q, k))
    beta = (2 if config.negative_eigenvalues else 1) * (x @ weights["beta.weight"].T).sigmoid()
    g = None
    if config.gated:
        g = -weights["A_log"].exp() * F.softplus(x @ weights["decay.weight"].T + weights["dt_bias"])
    beta = beta.unflatten(2, (N, H)).flatten(1, 2)
    y, _ = recurrence(q, k, v, g, beta, scale=K**-0.5, num_householder=N)
    gate = F.silu(x @ weights["gate.weight"].T)
    return (rms(y, weights["norm.weight"], config.norm_eps).flatten(2) * gate) @ weights["out.weight"].T


@pytest.mark.parametrize(
    ("n_steps", "gated", "negative_eigenvalues"),
    [(2, True, True), (3, True, False), (2, False, True), (1, False, False)],
)
def test_deltaproduct_logits_gradients_and_decoding_equal_the_reference(
    n_steps: int, gated: bool, negative_eigenvalues: bool
) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16, "d_conv": 3}
    assert_equals_reference(
        "deltaproduct",
        lambda weights, idx, config: mixer_model(weights, idx, config, mixer),
        T=40,
        n_steps=n_steps,
        gated=gated,
        negative_eigenvalues=negative_eigenvalues,
        norm_eps=1e-4,
        **sizes,
    )


def test_deltaproduct_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "d_conv": 3, "n_steps": 3, "gated": False, "norm_eps": 1e-3}
    (mixer, _), *_ = lmzoo.create_model("deltaproduct", vocab_size=13, negative_eigenvalues=False, **sizes).blocks
    assert isinstance(mixer.inner, DeltaProduct)
    assert (mixer.inner.n_heads, mixer.inner.key_dim, mixer.inner.value_dim) == (2, 12, 24)
    assert (mixer.inner.n_steps, mixer.inner.gated, mixer.inner.largest_beta) == (3, False, 1.0)
    assert (mixer.inner.conv.reach, mixer.inner.norm.eps) == (3, 1e-3)


def test_deltaproduct_state_has_a_fixed_size() -> None:
    """The steps of a token share the memory; only the convolution's inputs are more."""
    model = lmzoo.create_model("deltaproduct", vocab_size=13, d_model=32, n_layers=2, n_heads=4, n_steps=2)
    tail = 3 * 4 * (6 + 2 * 6 + 2 * 12)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (tail + 4 * 6 * 12)


def test_deltaproduct_config_names_what_leaves_no_width_for_the_keys() -> None:
    with pytest.raises(ConfigError, match="n_heads=4 is too many for d_model=3: key_dim would be 0"):
        lmzoo.create_model("deltaproduct", vocab_size=5, d_model=3, n_heads=4, device="meta")
