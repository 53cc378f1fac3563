"""Initial values: one layer draws each parameter, and a constructor does not change it afterwards."""

from __future__ import annotations

import pytest
import torch

from lmzoo.conformance import Fault, initial, subject
from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer
from tests.museum.exhibits import scaled_after_the_draw


def test_initialization_accepts_what_each_layer_draws() -> None:
    assert "parameters, each initialized by one layer" in initial.initialization(subject(Transformer))


def test_initialization_finds_a_size_that_is_lost() -> None:
    with pytest.raises(Fault, match=r"blocks.0.attention.out.weight has the mean .* and the standard deviation 0.009"):
        initial.initialization(subject(scaled_after_the_draw.MODEL))


def test_initialization_finds_a_mean_that_is_lost() -> None:
    class Shifted(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            torch.nn.init.constant_(self.blocks[0].up.bias, -2.0)

    with pytest.raises(Fault, match=r"blocks.0.up.bias has the mean -2 and the standard deviation 0 after the"):
        initial.initialization(subject(Shifted))


def test_initialization_finds_a_parameter_that_two_layers_draw_alike() -> None:
    class Tied(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.head = Linear(config.d_model, config.vocab_size, bias=False)  # its values are as large
            self.head.weight = self.tokens.weight

    with pytest.raises(Fault, match=r"tokens.weight is initialized by tokens and again by head"):
        initial.initialization(subject(Tied))
