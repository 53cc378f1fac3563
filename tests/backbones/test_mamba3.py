"""Mamba-3 compared with its equations in complex numbers: the state rotates, and the maps B and C do not.

tests/layers/test_mamba3.py compares the mixer with a loop over the real equations.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.mamba3 import Mamba3
from tests.backbones.references import Weights, assert_equals_reference, mixer_model, rms


def mixer(w: Weights, x_BTD: Tensor, config: Any) -> Tensor:
    """Computes the mixer by the complex recurrence of the paper, section 3."""
    E, N, P, eps = config.expand * config.d_model, config.d_state, config.head_dim, config.norm_eps
    H, R = E // P, int(N * config.rope_fraction) // 2

    def in_pairs(x: Tensor) -> Tensor:
        """Complex numbers from neighbors; a feature that does not rotate gets an imaginary part of zero."""
        return torch.cat([torch.view_as_complex(x[..., : 2 * R].unflatten(-1, (R, 2))), x[..., 2 * R :] + 0j], dim=-1)

    gate, x, B, C, dt, A, mix, turn = (x_BTD @ w["in_proj.weight"].T).split([E, E, N, N, H, H, H, R], dim=-1)
    B = in_pairs(rms(B, w["B_norm.weight"], eps)[:, :, None] + w["B_bias"])
    C = in_pairs(rms(C, w["C_norm.weight"], eps)[:, :, None] + w["C_bias"])
    dt, lam = F.softplus(dt + w["dt_bias"])[..., None], mix.sigmoid()[..., None]
    rate = F.softplus(A)[..., None] + 1j * F.pad(math.pi * turn.tanh(), (0, N - 2 * R))[:, :, None]
    alpha = torch.exp(-dt * rate)
    beta, gamma = (1 - lam) * dt * alpha, lam * dt
    x = x.unflatten(-1, (H, P))
    written = B[..., None] * x[..., None, :]
    state, ys = torch.zeros_like(written[:, 0]), []
    for t in range(x.shape[1]):
        state = alpha[:, t, ..., None] * state + gamma[:, t, ..., None] * written[:, t]
        if t > 0:
            state = state + beta[:, t, ..., None] * written[:, t - 1]
        ys.append((C[:, t, ..., None].conj() * state).sum(-2).real)
    y = (torch.stack(ys, dim=1) + w["D"][:, None] * x).flatten(2)
    return (y * F.silu(gate)) @ w["out_proj.weight"].T


def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits in float64."""
    return mixer_model({name: weight.double() for name, weight in weights.items()}, idx, config, mixer).float()


@pytest.mark.parametrize("rope_fraction", [0.5, 0.9])
def test_mamba3_logits_gradients_and_decoding_equal_the_reference(rope_fraction: float) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "d_state": 10, "head_dim": 8, "d_ff": 20, "context_length": 16}
    assert_equals_reference("mamba3", reference, T=40, rope_fraction=rope_fraction, norm_eps=1e-4, **sizes)


def test_mamba3_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "d_state": 12, "head_dim": 16, "expand": 3, "rope_fraction": 0.7, "norm_eps": 1e-3}
    (mixer, _), *_ = lmzoo.create_model("mamba3", vocab_size=13, **sizes).blocks
    assert isinstance(mixer.inner, Mamba3)
    assert (mixer.inner.d_state, mixer.inner.head_dim, mixer.inner.n_heads, mixer.inner.n_pairs) == (12, 16, 6, 4)
    assert (mixer.inner.B_norm.eps, mixer.inner.C_norm.eps) == (1e-3, 1e-3)


def test_mamba3_config_refuses_heads_and_rotations_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"head_dim=24 must divide expand \* d_model = 64"):
        lmzoo.create_model("mamba3", vocab_size=13, d_model=32, head_dim=24)
    with pytest.raises(ConfigError, match=r"rope_fraction=0\.2 of d_state=8 must be at least 2 features"):
        lmzoo.create_model("mamba3", vocab_size=13, d_model=32, d_state=8, rope_fraction=0.2)
    with pytest.raises(ConfigError, match=r"rope_fraction=1\.5 must be in \[0, 1\]"):
        lmzoo.create_model("mamba3", vocab_size=13, d_model=32, rope_fraction=1.5)


def test_mamba3_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("mamba3", vocab_size=13, d_model=32, n_layers=2, d_state=8, head_dim=16)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * 4 * (2 + 8 * 16 + 8 + 16)
    assert model.traits.state_growth == "constant"


def test_mamba3_initialization_follows_the_authors() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = lmzoo.create_model("mamba3", vocab_size=13, d_model=256, head_dim=2, generator=draw).state_dict()
    delta = F.softplus(weights["blocks.0.0.inner.dt_bias"].double())
    assert 1e-3 * 0.999 < delta.min() < 1.2e-3 < 0.09 < delta.max() < 0.1 * 1.001
    assert all((weights[f"blocks.1.0.inner.{name}"] == 1).all() for name in ("D", "B_bias", "C_bias"))
    for name, bound in {"in_proj": 1 / 16, "out_proj": 1 / 512**0.5 / 8**0.5}.items():
        assert 0.99 * bound < weights[f"blocks.1.0.inner.{name}.weight"].abs().max() <= bound


def test_mamba3_recurrence_gets_no_weight_decay() -> None:
    model = lmzoo.create_model("mamba3", vocab_size=13, d_model=32)
    decayed = {id(p) for group in model.parameter_groups(0.1) if group["weight_decay"] for p in group["params"]}
    kept = {name.partition("0.inner.")[2] for name, p in model.named_parameters() if id(p) not in decayed}
    assert kept - {""} == {"D", "dt_bias", "B_bias", "C_bias", "B_norm.weight", "C_norm.weight"}
