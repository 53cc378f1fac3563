"""The config lists `d_hidden` as a setting without effect, though it sets the width of a layer.

Ours: exceptions from the rule that each setting changes something are held to be true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "settings"


@dataclass(frozen=True, kw_only=True)
class HiddenConfig(CellConfig):
    without_effect: ClassVar[frozenset[str]] = frozenset({"d_hidden"})

    d_hidden: int = 8


class HiddenCell(Cell):
    def __init__(self, config: HiddenConfig) -> None:
        super().__init__(config)
        self.up, self.down = Linear(config.d_model, config.d_hidden), Linear(config.d_hidden, config.d_model)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return x_BTD + self.down(self.up(x_BTD).tanh()), state


class MODEL(Recurrent):
    config_class = HiddenConfig
    cell_class = HiddenCell
