"""Dropout as a layer: off in evaluation, exact zeros and scale in training."""

from __future__ import annotations

import torch

from lmzoo.layers.dropout import Dropout


def test_dropout_is_the_identity_in_eval_mode_and_with_p_zero() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_zeroes_and_scales_in_training() -> None:
    torch.manual_seed(0)
    y = Dropout(0.25).train()(torch.ones(100, 100))
    assert abs((y == 0).float().mean().item() - 0.25) < 0.02
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / 0.75))
