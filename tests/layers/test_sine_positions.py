"""Tests of positions as sines and cosines; tests/hf compares a whole model with transformers' XGLMForCausalLM."""

from __future__ import annotations

import math

import torch

from lmzoo.layers.sine_positions import SinePositions


def test_sine_positions_have_wavelengths_up_to_ten_thousand_turns() -> None:
    found = SinePositions(6, first=2)(torch.tensor([0, 5]))
    for row, position in zip(found.tolist(), (2, 7), strict=True):
        angles = [position / 10000 ** (k / 2) for k in range(3)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(torch.tensor(row), torch.tensor(expected))
