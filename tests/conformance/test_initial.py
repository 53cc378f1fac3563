"""Initial values: one layer draws each parameter, and a constructor does not change it afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, initial, subject
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from tests.museum.base import Cell, CellConfig, MuseumConfig, Recurrent, Transformer
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
            with torch.no_grad():
                self.blocks[0].up.weight -= 2.0

    with pytest.raises(Fault, match=r"blocks.0.up.weight has the mean -2 and the standard deviation 0.0209 after the"):
        initial.initialization(subject(Shifted))


def test_initialization_finds_a_parameter_that_two_layers_draw_alike() -> None:
    class Tied(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.head = Linear(config.d_model, config.vocab_size, bias=False)  # its values are as large
            self.head.weight = self.tokens.weight

    with pytest.raises(Fault, match=r"tokens.weight is initialized by tokens and again by head"):
        initial.initialization(subject(Tied))


def test_initialization_finds_a_few_constants_that_are_lost() -> None:
    """Of four numbers, the standard deviation alone would show nothing."""

    class Spread(Recurrent):
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            self.spare = RMSNorm(4)
            with torch.no_grad():
                self.spare.weight += torch.linspace(-1, 1, 4)

    with pytest.raises(Fault, match=r"values of spare.weight after the constructor \(mean .* init_weights\(\) gives"):
        initial.initialization(subject(Spread))


def spread(parameter: Tensor, generator: torch.Generator | None) -> None:
    order = torch.randperm(parameter.numel(), generator=generator)
    parameter.copy_(torch.linspace(-1, 1, parameter.numel())[order].view_as(parameter))


@pytest.mark.parametrize(("share", "is_kept"), [(0.72, True), (0.70, False)])
def test_initialization_allows_a_tenth_and_six_standard_errors(share: float, is_kept: bool) -> None:
    """Of 1,024 values six standard errors are 0.19, so that a deviation of 0.29 is allowed."""

    class Scaled(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.spare = Linear(32, 32, bias=False, init=spread)
            with torch.no_grad():
                self.spare.weight.mul_(share)

    if is_kept:
        initial.initialization(subject(Scaled))
    else:
        with pytest.raises(Fault, match=r"spare\.weight has the mean"):
            initial.initialization(subject(Scaled))


def test_initialization_asks_only_layers_of_this_package_to_keep_what_the_constructor_draws() -> None:
    class FilledCell(Cell):
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            torch.nn.init.constant_(self.taps_WD, 5.0)

    class Filled(Recurrent):
        cell_class = FilledCell

    assert "parameters, each initialized by one layer" in initial.initialization(subject(Filled))
