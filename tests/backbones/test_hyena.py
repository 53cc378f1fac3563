"""Hyena compared with its equations, with one FFT of twice the length as in the authors' code.

tests/layers/test_hyena.py compares the mixer with direct sums.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear, pad

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.hyena import Hyena
from tests.backbones.references import Weights, assert_equals_reference, mixer_model


def filters(w: Weights, T: int, config: Any) -> Tensor:
    """The filters of the first T positions, (O D, T), from complex exponentials of the position."""
    L, n_bands = config.context_length, config.n_bands
    t = torch.linspace(0, 1, L, dtype=torch.float64)[:T, None]
    turns = torch.linspace(1e-4, n_bands - 1, n_bands, dtype=torch.float64)
    z = torch.exp(-2j * math.pi * turns * torch.arange(T)[:, None] / L)
    h = torch.cat([t, z.real, z.imag], dim=-1)
    weights = [w["filter.w_in"], *w["filter.w_mid"]]
    for weight, bias in zip(weights, [w["filter.b_in"], *w["filter.b_mid"]], strict=True):
        h = torch.sin(w["filter.frequency"] * linear(h, weight, bias))
    k = linear(h, w["filter.w_out"])
    decays = torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, k.shape[1], dtype=torch.float64).abs()
    return (k * torch.exp(-t * decays)).T


def mixer(w: Weights, x_BTD: Tensor, config: Any) -> Tensor:
    T, D, width = x_BTD.shape[1], config.d_model, config.d_conv
    projected = pad(linear(x_BTD, w["in_proj.weight"], w["in_proj.bias"]).mT, (width - 1, 0))
    mixed = conv1d(projected, w["conv_weight"][:, None], w["conv_bias"], groups=projected.shape[1])
    *gates, v = mixed.split(D, dim=1)
    for gate, k, direct in zip(gates[:0:-1], filters(w, T, config).split(D), w["D"], strict=True):
        v = gate * v
        spectrum = torch.fft.rfft(v, n=2 * T) * torch.fft.rfft(k, n=2 * T)
        v = torch.fft.irfft(spectrum, n=2 * T)[..., :T] + direct[:, None] * v
    return linear((gates[0] * v).mT, w["out_proj.weight"], w["out_proj.bias"])


def reference(weights: Weights, idx: Tensor, config: Any) -> Tensor:
    """Computes the logits in float64."""
    return mixer_model({name: weight.double() for name, weight in weights.items()}, idx, config, mixer).float()


@pytest.mark.parametrize("order", [2, 3])
def test_hyena_logits_gradients_and_decoding_equal_the_reference(order: int) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "d_filter": 10, "n_bands": 3, "d_ff": 20, "context_length": 50}
    assert_equals_reference("hyena", reference, T=40, order=order, d_conv=4, norm_eps=1e-4, **sizes)


def test_hyena_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "order": 4, "d_conv": 5, "d_filter": 7, "n_bands": 3, "context_length": 20}
    (first, _), *_ = lmzoo.create_model("hyena", vocab_size=13, **sizes).blocks
    assert isinstance(first.inner, Hyena)
    assert (first.inner.n_convs, first.inner.conv_weight.shape) == (3, (5 * 32, 5))
    assert (first.inner.filter.length, first.inner.filter.w_in.shape) == (20, (7, 7))


def test_hyena_config_refuses_an_order_without_a_convolution() -> None:
    with pytest.raises(ConfigError, match="order=1 must be 2 or more"):
        lmzoo.create_model("hyena", vocab_size=13, order=1)


def test_hyena_state_grows_with_the_text_up_to_the_context() -> None:
    sizes = {"vocab_size": 13, "d_model": 32, "n_layers": 2, "order": 3, "context_length": 20}
    model = lmzoo.create_model("hyena", **sizes)
    tails = 2 * 4 * 2 * 4 * 32
    grown = [model.state_bytes(T) - tails for T in (5, 10, 20)]
    assert grown[1] - grown[0] >= 2 * 4 * 2 * 5 * 32
    assert (model.traits.extrapolates, model.traits.state_growth) == (False, "linear")


def test_hyena_number_of_parameters_does_not_depend_on_the_length() -> None:
    sizes = {"vocab_size": 13, "d_model": 32}
    short, long = (lmzoo.create_model("hyena", **sizes, context_length=T).num_params() for T in (16, 256))
    assert short == long


def test_hyena_recurrence_gets_no_weight_decay() -> None:
    model = lmzoo.create_model("hyena", vocab_size=13, d_model=32)
    decayed = {id(p) for group in model.parameter_groups(0.1) if group["weight_decay"] for p in group["params"]}
    kept = {name.partition("0.inner.")[2] for name, p in model.named_parameters() if id(p) not in decayed}
    vectors = {"conv_weight", "conv_bias", "D", "in_proj.bias", "out_proj.bias"}
    assert kept - {""} == vectors | {"filter.b_in", "filter.b_mid", "filter.frequency"}
