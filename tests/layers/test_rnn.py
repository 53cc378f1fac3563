"""A layer of simple recurrent units compared with torch.nn.RNN, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmzoo.layers.rnn import RNN
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def test_rnn_equals_torch() -> None:
    layer, x = perturbed(RNN(5)), random(2, 9, 5)
    theirs = nn.RNN(5, 5, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.weight_ih)
        theirs.weight_hh_l0.copy_(layer.weight_hh)
        theirs.bias_ih_l0.copy_(layer.bias)
        theirs.bias_hh_l0.zero_()
        torch.testing.assert_close(in_one_call(layer, x), theirs(x)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("lengths", [(1,) * 9, (4, 1, 4)])
def test_rnn_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(RNN(5)), random(2, 9, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_rnn_initial_values_are_torchs() -> None:
    layer = RNN(64)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 1 / 8
        assert abs(parameter.std().item() * 8 * 3**0.5 - 1) < 0.2  # a uniform's spread is its bound / sqrt(3)


def test_rnn_state_is_float32_in_a_bfloat16_model() -> None:
    state = RNN(8).bfloat16().init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.dtype, state.shape) == (torch.float32, (3, 8))


def test_rnn_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(RNN(5), random(1, 7, 5))
    assert declared == counted
