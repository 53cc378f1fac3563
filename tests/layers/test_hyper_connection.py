"""Hyper-connections compared with loops over their equations; decoding in pieces; their first weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lmzoo.layers.attention import Attention
from lmzoo.layers.hyper_connection import HyperConnection, ManifoldHyperConnection, Streams, SumStreams
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.sinkhorn import naive_sinkhorn
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random

D, N = 12, 3
FORMS = {
    "free": lambda inner: HyperConnection(D, N, RMSNorm(D), inner, index=4),
    "manifold": lambda inner: ManifoldHyperConnection(D, N, RMSNorm(D), inner, iterations=5, index=4),
}


def normalized(x: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-5).sqrt()


def coefficients(layer: Streams, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the equations of the card for the streams of one token."""
    if isinstance(layer, HyperConnection):
        rows = torch.stack([torch.tanh(layer.weight @ (layer.norm.weight * normalized(x))) for x in x_ND])
        dynamic = torch.cat([layer.scale[0] * rows[:, : N + 1], layer.scale[1] * rows[:, N + 1 :]], dim=1)
        weights = dynamic + layer.static
        return weights[:, N], weights[:, N + 1], weights[:, :N]
    assert isinstance(layer, ManifoldHyperConnection)
    out = layer.weight @ normalized(x_ND.flatten())
    read, write, mix = (
        scale * part + bias
        for scale, part, bias in zip(
            layer.scale, out.split([N, N, N * N]), layer.bias.split([N, N, N * N]), strict=True
        )
    )
    return read.sigmoid(), 2 * write.sigmoid(), naive_sinkhorn(mix.view(N, N), 5)


@pytest.mark.parametrize("form", FORMS)
def test_hyper_connection_equals_its_equations(form: str) -> None:
    layer, x = perturbed(FORMS[form](MLP(D, 8))), random(2, 5, N, D)
    expected = torch.zeros_like(x)
    for b in range(2):
        for t in range(5):
            read, write, mix = coefficients(layer, x[b, t])
            h = sum(read[n] * x[b, t, n] for n in range(N))
            y = layer.inner(layer.before.weight * normalized(h))
            for m in range(N):
                expected[b, t, m] = write[m] * y + sum(mix[n, m] * x[b, t, n] for n in range(N))
    torch.testing.assert_close(in_one_call(layer, x), expected.detach())


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_hyper_connection_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(FORMS[form](Attention(D, 2))), random(2, 9, N, D)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_hyper_connection_starts_as_a_pre_norm_residual() -> None:
    """With equal streams: each stream gets what `x + inner(norm(x))` gives; layer 4 of 3 streams reads the second."""
    inner = MLP(D, 8)
    layer = HyperConnection(D, N, RMSNorm(D), inner, index=4).double()
    torch.testing.assert_close(layer.scale, layer.scale.new_full((2,), 0.01), atol=1e-9, rtol=0)
    x = random(2, 5, 1, D)
    y = in_one_call(layer, x.expand(-1, -1, N, -1))
    torch.testing.assert_close(y, (x + inner(layer.before(x))).expand_as(y).detach())
    read, write, mix = layer.coefficients(random(2, 5, N, D))
    assert (read[0, 0].tolist(), write[0, 0].tolist()) == ([0, 1, 0], [1, 1, 1])
    assert torch.equal(mix[0, 0], torch.eye(N, dtype=torch.float64))


def test_manifold_hyper_connection_starts_close_to_a_residual() -> None:
    layer = ManifoldHyperConnection(D, N, RMSNorm(D), nn.Identity(), index=4).double()
    read, write, mix = (weights[0, 0] for weights in layer.coefficients(random(2, 5, N, D)))
    sigmoid = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(read, read.new_tensor([1 - sigmoid, sigmoid, 1 - sigmoid]), atol=1e-2, rtol=0)
    torch.testing.assert_close(write, torch.ones_like(write), atol=1e-2, rtol=0)
    torch.testing.assert_close(mix, torch.eye(N, dtype=mix.dtype), atol=1e-2, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_hyper_connection_sets_all_initial_values_anew(form: str) -> None:
    """Memory that is not initialized often happens to be zero."""
    layer = FORMS[form](nn.Identity())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    layer.init_parameters()
    assert all(parameter.isfinite().all() for parameter in layer.parameters(recurse=False))
    if isinstance(layer, ManifoldHyperConnection):
        mix = 8.0 * torch.eye(N)
        assert torch.equal(layer.bias, torch.cat([torch.tensor([-1.0, 1.0, -1.0, 0, 0, 0]), mix.flatten()]))


@pytest.mark.parametrize("form", FORMS)
def test_hyper_connection_declares_its_flops(form: str) -> None:
    declared, counted = declared_and_counted_flops(FORMS[form](MLP(D, 8)), random(1, 5, N, D))
    assert declared == counted


def test_sum_streams_adds_up() -> None:
    assert torch.equal(SumStreams()(torch.ones(2, 5, N, D)), torch.full((2, 5, D), 3.0))
