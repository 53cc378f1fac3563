"""RWKV-7's mixers compared with a loop over their equations, values and gradients, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.rwkv7 import FIRST_VALUES, ChannelMix, LowRank, Ranks, TimeMix
from lmzoo.ops.linear_chunks import CHUNK_LENGTH
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def make_time_mix(layer: int) -> TimeMix:
    time_mix = perturbed(TimeMix(8, 4, Ranks(2, 3, 2, 3), (layer, 3)))
    assert isinstance(time_mix, TimeMix)
    return time_mix


def low_rank(layer: LowRank, x_D: Tensor, activation: object = None) -> Tensor:
    h = layer.down.weight @ x_D
    h = activation(h) if callable(activation) else h
    return layer.up.weight @ h + (0 if layer.bias is None else layer.bias)


def by_equations(layer: TimeMix, x_BTD: Tensor, first_BTD: Tensor | None) -> Tensor:
    """Computes the equations of the card, one token and one head at a time, with the memory as (values, keys)."""
    (B, T, D), K = x_BTD.shape, layer.head_dim
    out = []
    for b in range(B):
        S = [torch.zeros(K, K, dtype=x_BTD.dtype) for _ in range(D // K)]
        for t in range(T):
            x = x_BTD[b, t]
            before = x_BTD[b, t - 1] if t else torch.zeros_like(x)
            xr, xw, xk, xv, xa, xg = (x + (before - x) * mix for mix in layer.shift.mix)
            r, k, v = (m.weight @ y for m, y in ((layer.receptance, xr), (layer.key, xk), (layer.value, xv)))
            w = torch.exp(-torch.exp(-torch.nn.functional.softplus(-low_rank(layer.decay, xw, torch.tanh)) - 0.5))
            a = torch.sigmoid(low_rank(layer.rate, xa))
            if layer.residual is not None:
                assert first_BTD is not None
                v = v + (first_BTD[b, t] - v) * torch.sigmoid(low_rank(layer.residual, xv))
            kappa, k = k * layer.k_k, k * (1 + (a - 1) * layer.k_a)
            ys = []
            for h, part in enumerate(torch.arange(D).split(K)):
                kk = kappa[part] / kappa[part].norm()
                transition = torch.diag(w[part]) - torch.outer(kk, kk * a[part])
                S[h] = S[h] @ transition + torch.outer(v[part], k[part])
                y = S[h] @ r[part]
                y = (y - y.mean()) / (y.var(unbiased=False) + 64e-5).sqrt()
                y = y * layer.norm.weight[part] + layer.norm.bias[part]
                ys.append(y + (r[part] * k[part] * layer.r_k[part]).sum() * v[part])
            out.append(layer.out.weight @ (torch.cat(ys) * low_rank(layer.gate, xg, torch.sigmoid)))
    return torch.stack(out).view(B, T, D)


@pytest.mark.parametrize("layer", [0, 1])
def test_time_mix_equals_its_equations(layer: int) -> None:
    time_mix, x, first = make_time_mix(layer), random(2, 9, 8), random(2, 9, 8, seed=2)
    ctx = context(x)
    ctx.carry[FIRST_VALUES] = first
    parameters = list(time_mix.parameters())
    results = []
    for y in (time_mix(x, None, ctx)[0], by_equations(time_mix, x, first)):
        results.append([y, *torch.autograd.grad((y * random(2, 9, 8, seed=3)).sum(), parameters)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_time_mix_of_the_first_layer_leaves_its_values() -> None:
    time_mix, x = make_time_mix(0), random(2, 5, 8)
    ctx = context(x)
    time_mix(x, None, ctx)
    assert ctx.carry[FIRST_VALUES].shape == (2, 5, 8)


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (CHUNK_LENGTH + 7,)])
@pytest.mark.parametrize("layer", [make_time_mix(0), perturbed(ChannelMix(8, 12, (1, 3)))])
def test_rwkv7_in_pieces_equals_one_call(layer: Layer, lengths: tuple[int, ...]) -> None:
    x = random(2, CHUNK_LENGTH + 12, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_channel_mix_equals_its_equation() -> None:
    layer, x = perturbed(ChannelMix(8, 12, (1, 3))), random(2, 5, 8)
    before = torch.cat([torch.zeros(2, 1, 8, dtype=x.dtype), x[:, :-1]], dim=1)
    mixed = x + (before - x) * layer.shift.mix[0]
    expected = torch.relu(mixed @ layer.up.weight.T) ** 2 @ layer.down.weight.T
    torch.testing.assert_close(in_one_call(layer, x), expected)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_time_mix_initialization_follows_the_authors(layer: int) -> None:
    D, time_mix = 64, TimeMix(64, 16, Ranks(2, 3, 2, 3), (layer, 3))
    ramp = torch.arange(D) / D
    for mix, exponent in zip(time_mix.shift.mix, (0.2, 0.9, 0.7, 0.7, 0.9, 0.2), strict=True):
        torch.testing.assert_close(mix, 1 - ramp ** (exponent * (1 - layer / 3)))
    decays = -6.5 + 5 * (torch.arange(D) / (D - 1)) ** (0.85 + (layer / 2) ** 0.5)
    torch.testing.assert_close(time_mix.decay.bias, decays)
    for linear, bound in ((time_mix.receptance, 0.5), (time_mix.key, 0.05), (time_mix.value, 0.5)):
        assert 0.99 * bound / 8 < linear.weight.abs().max() <= bound / 8
    assert not time_mix.out.weight.any(), "the layer adds nothing at first"
    residual = [] if time_mix.residual is None else [(time_mix.residual.bias, 1)]
    constants = [(time_mix.rate.bias, 0), (time_mix.k_k, 0.85), (time_mix.k_a, 1), (time_mix.r_k, 0), *residual]
    for parameter, value in constants:
        torch.testing.assert_close(parameter, torch.full((D,), float(value)))
    assert (time_mix.residual is None) == (layer == 0)


def test_time_mix_of_one_layer_and_one_feature_has_finite_values() -> None:
    time_mix = TimeMix(1, 1, Ranks(2, 3, 2, 3), (0, 1))
    assert time_mix.decay.bias.item() == -6.5


def test_low_rank_starts_at_its_bias() -> None:
    layer = LowRank(64, 16, constant(0.5), torch.tanh)
    assert layer.reach == 1
    assert not layer.down.weight.any()
    assert abs(layer.up.weight.std() / (0.1 / 8) - 1) < 0.1
    torch.testing.assert_close(layer(torch.ones(1, 2, 64)), torch.full((1, 2, 64), 0.5))


def test_channel_mix_initialization_follows_the_authors() -> None:
    layer = ChannelMix(64, 96, (1, 3))
    assert layer.reach == 2
    torch.testing.assert_close(layer.shift.mix[0], 1 - (torch.arange(64) / 64) ** (2 / 3) ** 4)
    assert 0.99 * 0.5 / 8 < layer.up.weight.abs().max() <= 0.5 / 8
    assert not layer.down.weight.any(), "the layer adds nothing at first"


def test_rwkv7_declares_its_flops() -> None:
    for layer in (TimeMix(8, 4, Ranks(2, 3, 2, 3), (0, 3)), ChannelMix(8, 12, (1, 3))):
        declared, counted = declared_and_counted_flops(layer, random(1, 7, 8))
        assert declared == counted


def test_time_mix_state_is_float32_in_a_bfloat16_model() -> None:
    state = make_time_mix(0).init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.before.dtype, state.memory.dtype) == (torch.bfloat16, torch.float32)
    assert (state.before.shape, state.memory.shape) == ((3, 8), (3, 2, 4, 4))
