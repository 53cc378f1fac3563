"""S4D's and S5's mixers compared with loops over their equations in complex numbers, and decoding in pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.s4d import S4D, S5, discretized, hippo_frequencies
from lmzoo.ops.diagonal_ssm import CHUNK_LENGTH
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

BOTH = pytest.mark.parametrize("make", [S4D, S5])


def by_equations(layer: S4D | S5, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token at a time, with all states of S4D as rows of one matrix."""
    A = -torch.exp(layer.log_rate) + 1j * layer.frequency
    dt = torch.exp(layer.log_dt[:, None] if isinstance(layer, S4D) else layer.log_dt)
    a = torch.exp(dt * A)
    b = (a - 1) / A
    out = torch.zeros_like(x_BTD)
    for n, x_TD in enumerate(x_BTD):
        h = torch.zeros_like(a)
        for t, x_D in enumerate(x_TD):
            if isinstance(layer, S4D):
                h = a * h + b * x_D[:, None]
                y_D = 2 * (torch.view_as_complex(layer.C) * h).sum(-1).real
            else:
                h = a * h + b * torch.view_as_complex((layer.B.weight @ x_D).view(-1, 2))
                C = layer.C.weight.view(len(x_D), -1, 2)
                y_D = C[..., 0] @ h.real + C[..., 1] @ h.imag
            left, right = (layer.out.weight @ F.gelu(y_D + layer.D * x_D) + layer.out.bias).chunk(2)
            out[n, t] = left * torch.sigmoid(right)
    return out


@BOTH
def test_s4d_equals_its_equations(make: type[S4D] | type[S5]) -> None:
    layer, x = perturbed(make(6, d_state=8)), random(2, CHUNK_LENGTH + 5, 6)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x))


@BOTH
@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 7), (1,) * 5 + (CHUNK_LENGTH + 7,)])
def test_s4d_in_pieces_equals_one_call(make: type[S4D] | type[S5], lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(make(6, d_state=8)), random(2, CHUNK_LENGTH + 12, 6)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


@pytest.mark.parametrize("log_dt", [-30.0, -7.0, 0.0, 3.0, 30.0])
def test_discretized_is_the_zero_order_hold(log_dt: float) -> None:
    """At small steps in float32 it agrees with float64."""
    log_rate, frequency = torch.tensor([-1.0, 0.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 30.0, 1e4])
    a, b = discretized(torch.tensor(log_dt), log_rate, frequency)
    A = -log_rate.double().exp() + 1j * frequency.double()
    # The angle is rounded to float32 by the layer.
    angle = (torch.tensor(log_dt).exp() * frequency).double()
    want_a = torch.exp(math.exp(log_dt) * A.real) * torch.exp(1j * angle)
    want_b = (want_a - 1) / A if log_dt > -20 else math.exp(log_dt) * torch.ones_like(A)
    torch.testing.assert_close(torch.view_as_complex(a), want_a.to(torch.complex64), rtol=1e-5, atol=1e-6)
    error = (torch.view_as_complex(b) - want_b).abs() / want_b.abs()
    assert error.max() < 1e-4


def test_hippo_frequencies_are_the_eigenvalues_of_the_normal_part() -> None:
    """The HiPPO-LegS matrix plus the outer product of (n + 1/2)^(1/2) is normal, with the real part -1/2."""
    n = torch.arange(16, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    hippo = -(torch.tril(torch.outer(root, root), -1) + torch.diag(n + 1))
    normal = hippo + torch.outer((n + 0.5).sqrt(), (n + 0.5).sqrt())
    eigenvalues = torch.linalg.eigvals(normal)
    torch.testing.assert_close(eigenvalues.real, torch.full((16,), -0.5, dtype=torch.float64))
    frequency = torch.empty(8, dtype=torch.float64)
    hippo_frequencies(frequency, None)
    torch.testing.assert_close(frequency, eigenvalues.imag.sort().values[8:])


@BOTH
@pytest.mark.parametrize("log_dt", [-50.0, 50.0])
def test_s4d_is_finite_at_extreme_step_sizes(make: type[S4D] | type[S5], log_dt: float) -> None:
    layer, x = make(6, d_state=8), random(2, 9, 6).float()
    with torch.no_grad():
        layer.log_dt.fill_(log_dt)
    y_BTD = layer(x, None, context(x))[0]
    y_BTD.square().sum().backward()
    assert y_BTD.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_s4d_state_is_float32_in_a_bfloat16_model() -> None:
    like = torch.zeros(0, dtype=torch.bfloat16)
    for layer, shape in ((S4D(6, d_state=8), (3, 6, 4, 2)), (S5(6, d_state=8), (3, 4, 2))):
        state = layer.init_state(3, 9, like)
        assert (state.dtype, state.shape) == (torch.float32, shape)
