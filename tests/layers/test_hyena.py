"""Hyena's mixer compared with its equations, its filters, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.hyena import Hyena, HyenaFilter
from lmzoo.ops.long_conv import BLOCK_LENGTH
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def filters_by_equations(layer: HyenaFilter, T: int) -> Tensor:
    """Computes the filters of T positions one after another, (T, O D)."""
    L, rows = layer.length, []
    for t in range(T):
        features = [t / (L - 1)]
        bands = [1e-4 + (layer.n_bands - 1 - 1e-4) * b / max(layer.n_bands - 1, 1) for b in range(layer.n_bands)]
        features += [math.cos(2 * math.pi * band * t / L) for band in bands]
        features += [-math.sin(2 * math.pi * band * t / L) for band in bands]
        h = torch.sin(layer.frequency * (layer.w_in @ torch.tensor(features, dtype=torch.float64) + layer.b_in))
        h = torch.sin(layer.frequency * (layer.w_mid[0] @ h + layer.b_mid[0]))
        h = torch.sin(layer.frequency * (layer.w_mid[1] @ h + layer.b_mid[1]))
        n = len(layer.w_out)
        # At the end of the text the first channel's envelope is 0.01^(1 / 1.5), at 0.3 of it the last one's is 0.01.
        shares = torch.tensor([1 / 1.5 + (1 / 0.3 - 1 / 1.5) * d / (n - 1) for d in range(n)], dtype=torch.float64)
        rows.append((layer.w_out @ h) * 0.01 ** (shares * t / (L - 1)))
    return torch.stack(rows)


def by_equations(layer: Hyena, x_BTD: Tensor) -> Tensor:
    """Computes the recurrence of the paper, section 3.1, with direct sums."""
    T, D, W = *x_BTD.shape[1:], layer.conv_weight.shape[1]
    projected = F.pad(x_BTD @ layer.in_proj.weight.T + layer.in_proj.bias, (0, 0, W - 1, 0))
    mixed = sum(layer.conv_weight[:, w] * projected[:, w : w + T] for w in range(W)) + layer.conv_bias
    *gates, v = mixed.split(D, dim=-1)
    k = filters_by_equations(layer.filter, T)
    for o in range(layer.n_convs):
        v = gates[layer.n_convs - o] * v
        long = torch.zeros_like(v)
        for t in range(T):
            for s in range(t + 1):
                long[:, t] += k[t - s, o * D : (o + 1) * D] * v[:, s]
        v = long + layer.D[o] * v
    return layer.out_proj(gates[0] * v)


@pytest.mark.parametrize("order", [2, 4])
def test_hyena_equals_its_equations(order: int) -> None:
    layer, x = perturbed(Hyena(6, 20, order=order, d_filter=5, n_bands=3)), random(2, 9, 6)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@pytest.mark.parametrize("lengths", [(BLOCK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (BLOCK_LENGTH + 7,)])
def test_hyena_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(Hyena(6, BLOCK_LENGTH + 20, order=3)), random(2, BLOCK_LENGTH + 12, 6)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_hyena_filter_does_not_depend_on_the_length_of_the_text_but_on_the_longest_one() -> None:
    layer = perturbed(HyenaFilter(6, 20, 5, 3))
    torch.testing.assert_close(layer(7), layer(20)[:7])
    assert len(layer(30)) == 20
    layer.length = 40
    assert (layer(7) - layer(20)[:7]).abs().max() < 1e-12
    shorter = HyenaFilter(6, 20, 5, 3).double()
    shorter.load_state_dict(layer.state_dict())
    assert (shorter(7)[1:] - layer(7)[1:]).abs().min() > 1e-9


def test_hyena_filter_is_exact_under_autocast_to_bfloat16() -> None:
    layer = HyenaFilter(6, 20, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(20)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, layer(20))


def test_hyena_filter_of_one_position_is_finite() -> None:
    assert HyenaFilter(6, 1, 5, 1)(1).isfinite().all()


def test_hyena_state_keeps_the_filters_and_the_inputs() -> None:
    layer, x = Hyena(6, 20, order=3), random(2, 9, 6).float()
    state = layer.init_state(2, 9, x)
    assert torch.equal(state.filters.tensor, layer.filter(20))
    _, after = layer(x, state, context(x))
    assert [buffer.length for buffer in (*state.inputs, *after.inputs)] == [0, 0, 9, 9]
    assert after.filters is state.filters
