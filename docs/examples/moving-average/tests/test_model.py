"""Tests that the model is right: the checks of lmzoo, and the equation of its memory."""

import torch
from lmzoo_moving_average.model import MovingAverage

import lmzoo


def test_moving_average_passes_all_checks():
    report = lmzoo.check_model("moving-average")
    assert report.passed, report.failures


def test_moving_average_of_a_constant_approaches_it():
    layer = MovingAverage(4)
    with torch.no_grad():
        layer.keep.fill_(0.0)  # a fraction of 1/2
        layer.value_and_gate.weight[:4] = torch.eye(4)
        layer.value_and_gate.weight[4:] = 100 * torch.eye(4)  # gates of 100 for inputs of one: silu(100) = 100
        layer.out.weight.copy_(torch.eye(4) / 100)
    y_BTD, _ = layer(torch.ones(1, 3, 4), None, None)
    torch.testing.assert_close(y_BTD[0, :, 0], torch.tensor([0.5, 0.75, 0.875]))
