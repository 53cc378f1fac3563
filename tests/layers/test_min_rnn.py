"""minGRU and minLSTM compared with a loop over their equations and with the package minGRU-pytorch."""

from __future__ import annotations

import pytest
import torch
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from torch import Tensor

from lmzoo.layers.min_rnn import Cell, MinRNN, log_g
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random

CELLS = ("gru", "lstm")


def g(v: Tensor) -> Tensor:
    return torch.where(v >= 0, v + 0.5, torch.sigmoid(v))


def by_equations(layer: MinRNN, x_BTD: Tensor) -> Tensor:
    """Computes the equations of the card, one token at a time, without logarithms."""
    h_BE, ys = torch.zeros(len(x_BTD), layer.inner, dtype=x_BTD.dtype), []
    for x_BD in x_BTD.unbind(1):
        v, *gates = (x_BD @ layer.in_proj.weight.T).split(layer.inner, dim=-1)
        sigmoids = [torch.sigmoid(gate) for gate in gates]
        i = sigmoids[0] if layer.cell == "gru" else sigmoids[1] / (sigmoids[0] + sigmoids[1])
        h_BE = (1 - i) * h_BE + i * g(v)
        ys.append(h_BE @ layer.out.weight.T)
    return torch.stack(ys, dim=1)


@pytest.mark.parametrize("cell", CELLS)
def test_min_rnn_equals_its_equations(cell: Cell) -> None:
    layer, x = perturbed(MinRNN(5, cell=cell)), random(2, 19, 5)
    torch.testing.assert_close(in_one_call(layer, x), by_equations(layer, x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("cell", "theirs"), [("gru", minGRU), ("lstm", minLSTM)])
def test_min_rnn_equals_the_package(cell: Cell, theirs: type) -> None:
    layer, x = perturbed(MinRNN(5, expand=3, cell=cell)), random(2, 19, 5)
    other = theirs(5, expansion_factor=3).double()
    other.load_state_dict(dict(zip(other.state_dict(), layer.state_dict().values(), strict=True)), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(in_one_call(layer, x), other(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lengths", [(1,) * 36, (17, 1, 18), (2, 33, 1)])
def test_min_rnn_in_pieces_equals_one_call(cell: Cell, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(MinRNN(5, cell=cell)), random(2, 36, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


@pytest.mark.parametrize("cell", CELLS)
def test_min_rnn_continues_from_the_state_and_not_from_g_of_it(cell: Cell) -> None:
    """A known mistake of others: the state that is carried from one chunk to the next goes through g once more."""
    layer, x = perturbed(MinRNN(5, cell=cell)), random(2, 19, 5)
    with torch.no_grad():
        whole = by_equations(layer, x)[:, 9:]
        _, state = layer(x[:, :9], layer.init_state(2, 19, x), context(x))
        right, wrong = (layer(x[:, 9:], start, context(x, 9))[0] for start in (state, g(state)))
    torch.testing.assert_close(right, whole, atol=1e-12, rtol=0)
    assert (wrong - whole).abs().max() > 0.1


def test_log_g_is_the_logarithm_of_g_and_finite_far_from_zero() -> None:
    v = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(log_g(v), g(v).log())
    far = torch.tensor([-1e4, -0.5, 1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_g(far).sum(), far)
    assert log_g(far).isfinite().all()
    assert gradient.isfinite().all()


def test_min_rnn_state_is_float32_in_a_bfloat16_model() -> None:
    state = MinRNN(8, expand=3).bfloat16().init_state(2, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.dtype, state.shape) == (torch.float32, (2, 24))


def test_min_rnn_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(MinRNN(5), random(1, 7, 5))
    assert declared == counted
