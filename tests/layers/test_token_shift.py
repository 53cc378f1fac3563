"""Token shift: the mixtures, and decoding in pieces."""

from __future__ import annotations

import torch

from lmzoo.layers.init import normal
from lmzoo.layers.token_shift import TokenShift
from tests.layers.decoded import context, in_one_call, perturbed, random


def test_token_shift_mixes_with_the_token_before() -> None:
    layer, x = perturbed(TokenShift(3, 2, normal())), random(2, 5, 3)
    assert layer.reach == 2
    y = in_one_call(layer, x)
    torch.testing.assert_close(in_one_call(layer, x[:, :1]), y[:, :, :1])
    for n in range(2):
        for t in range(5):
            before = x[:, t - 1] if t else torch.zeros(2, 3)
            torch.testing.assert_close(y[n, :, t], (1 - layer.mix[n]) * x[:, t] + layer.mix[n] * before)


def test_token_shift_in_pieces_equals_one_call() -> None:
    layer, x = perturbed(TokenShift(3, 2, normal())), random(2, 5, 3)
    state, pieces = layer.init_state(2, 5, x), []
    for piece in x.split([2, 1, 2], dim=1):
        y, state = layer(piece, state, context(piece))
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=2), in_one_call(layer, x))
