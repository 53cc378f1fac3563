"""A layer of LSTM cells compared with torch.nn.LSTM, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmzoo.layers.lstm import LSTM
from tests.layers.decoded import declared_and_counted_flops, in_one_call, in_pieces, perturbed, random


def test_lstm_equals_torch() -> None:
    layer, x = perturbed(LSTM(5)), random(2, 9, 5)
    theirs = nn.LSTM(5, 5, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.weight_ih)
        theirs.weight_hh_l0.copy_(layer.weight_hh)
        theirs.bias_ih_l0.copy_(layer.bias)
        theirs.bias_hh_l0.zero_()
        torch.testing.assert_close(in_one_call(layer, x), theirs(x)[0])


@pytest.mark.parametrize("lengths", [(1,) * 9, (4, 1, 4)])
def test_lstm_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(LSTM(5)), random(2, 9, 5)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_lstm_forget_bias_is_one() -> None:
    layer = LSTM(64)
    assert (layer.bias[64:128] == 1).all()
    for drawn in (layer.bias[:64], layer.bias[128:], layer.weight_ih, layer.weight_hh):
        assert drawn.abs().max() <= 1 / 8
        assert abs(drawn.std().item() * 8 * 3**0.5 - 1) < 0.3  # a uniform's spread is its bound / sqrt(3)


def test_lstm_declares_its_flops() -> None:
    declared, counted = declared_and_counted_flops(LSTM(5), random(1, 7, 5))
    assert declared == counted
