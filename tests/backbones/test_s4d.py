"""S4D compared with convolutions by the filter of the paper, S5 with its recurrence in complex numbers.

tests/layers/test_s4d.py compares the mixers with loops over their equations.
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
from lmzoo.layers.s4d import S4D, S5
from tests.backbones.references import Weights, assert_equals_reference, mixer_model


def gated(w: Weights, y_BTD: Tensor) -> Tensor:
    """The end of both mixers."""
    left, right = (F.gelu(y_BTD) @ w["out.weight"].T + w["out.bias"]).chunk(2, dim=-1)
    return left * right.sigmoid()


def s4d(w: Weights, u_BTD: Tensor, config: Any) -> Tensor:
    """A convolution: the filter at the distances 0 ... T - 1 is a product with a Vandermonde matrix."""
    T, dt = u_BTD.shape[1], w["log_dt"].exp()[:, None]
    A = torch.complex(-w["log_rate"].exp(), w["frequency"])
    weights = torch.view_as_complex(w["C"]) * ((dt * A).exp() - 1) / A
    filters_DT = 2 * (weights[..., None] * (dt * A)[..., None].mul(torch.arange(T)).exp()).sum(1).real
    padded = F.pad(u_BTD.mT, (T - 1, 0))
    y = F.conv1d(padded, filters_DT.flip(-1)[:, None], groups=config.d_model).mT
    return gated(w, y + w["D"] * u_BTD)


def s5(w: Weights, u_BTD: Tensor, config: Any) -> Tensor:
    """The recurrence of equation 2 of the paper, with complex B and C."""
    dt, A = w["log_dt"].exp(), torch.complex(-w["log_rate"].exp(), w["frequency"])
    a = (dt * A).exp()
    B = torch.complex(*w["B.weight"].unflatten(0, (-1, 2)).unbind(1))
    C = torch.complex(*w["C.weight"].unflatten(1, (-1, 2)).unbind(2)).conj() / 2
    x, ys = torch.zeros(len(u_BTD), len(A), dtype=a.dtype), []
    for u_BD in u_BTD.unbind(1):
        x = a * x + (u_BD + 0j) @ (((a - 1) / A)[:, None] * B).T
        ys.append(2 * (x @ C.T).real + w["D"] * u_BD)
    return gated(w, torch.stack(ys, dim=1))


@pytest.mark.parametrize("mimo", [False, True])
def test_s4d_logits_gradients_and_decoding_equal_the_reference(mimo: bool) -> None:
    def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
        w = {name: weight.double() for name, weight in weights.items()}
        return mixer_model(w, idx, config, s5 if mimo else s4d).float()

    sizes = {"d_model": 24, "n_layers": 2, "d_state": 10, "d_ff": 20, "context_length": 16}
    assert_equals_reference("s4d", reference, T=40, mimo=mimo, norm_eps=1e-4, **sizes)


@pytest.mark.parametrize(("mimo", "mixer", "shape"), [(False, S4D, (32, 6)), (True, S5, (6,))])
def test_s4d_passes_its_options_to_the_mixer(mimo: bool, mixer: type, shape: tuple[int, ...]) -> None:
    (first, _), *_ = lmzoo.create_model("s4d", vocab_size=13, d_model=32, d_state=12, mimo=mimo).blocks
    assert type(first.inner) is mixer
    assert first.inner.frequency.shape == shape


def test_s4d_config_refuses_an_odd_number_of_states() -> None:
    with pytest.raises(ConfigError, match="d_state=7 must be even: states are complex"):
        lmzoo.create_model("s4d", vocab_size=13, d_state=7)


@pytest.mark.parametrize(("mimo", "numbers"), [(False, 32 * 12), (True, 12)])
def test_s4d_state_has_a_fixed_size(mimo: bool, numbers: int) -> None:
    model = lmzoo.create_model("s4d", vocab_size=13, d_model=32, n_layers=2, d_state=12, mimo=mimo)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * numbers
    assert model.traits.state_growth == "constant"


@pytest.mark.parametrize("mimo", [False, True])
def test_s4d_initialization_follows_the_authors(mimo: bool) -> None:
    draw, name = torch.Generator().manual_seed(0), "blocks.1.0.inner"
    sizes = {"vocab_size": 13, "d_model": 256, "d_state": 256}
    weights = lmzoo.create_model("s4d", **sizes, mimo=mimo, generator=draw).state_dict()
    dt = weights[f"{name}.log_dt"].exp()
    assert 1e-3 * 0.999 < dt.min() < 1.2e-3 < 0.085 < dt.max() < 0.1 * 1.001
    torch.testing.assert_close(weights[f"{name}.log_rate"].exp(), torch.full_like(weights[f"{name}.log_rate"], 0.5))
    if mimo:
        torch.testing.assert_close(weights[f"{name}.B.weight"].std().item(), 512**-0.5, rtol=0.02, atol=0)
        torch.testing.assert_close(weights[f"{name}.C.weight"].std().item(), 64**-0.5, rtol=0.02, atol=0)
    else:
        torch.testing.assert_close(weights[f"{name}.frequency"][3], math.pi * torch.arange(128.0))
        torch.testing.assert_close(weights[f"{name}.C"].square().sum(-1).mean().item(), 1.0, rtol=0.02, atol=0)


@pytest.mark.parametrize("mimo", [False, True])
def test_s4d_recurrence_gets_no_weight_decay(mimo: bool) -> None:
    model = lmzoo.create_model("s4d", vocab_size=13, d_model=32, mimo=mimo)
    decayed = {id(p) for group in model.parameter_groups(0.1) if group["weight_decay"] for p in group["params"]}
    kept = {name.partition("0.inner.")[2] for name, p in model.named_parameters() if id(p) not in decayed}
    assert kept - {""} == {"log_dt", "log_rate", "frequency", "D", "out.bias", *([] if mimo else ["C"])}
