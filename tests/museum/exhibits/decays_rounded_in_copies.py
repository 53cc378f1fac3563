"""Decays from 0.99 to 0.9999 are a parameter, and keep_float32 does not name it: a copy has 0.992, 0.996 or 1.

Ours: a copy for decoding has other memories, and with a decay of 1 takes nothing up.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "bfloat16"


class SlowCell(Cell):
    keep_float32: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.decay_D = torch.nn.Parameter(torch.empty(config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        torch.nn.init.uniform_(self.decay_D, 0.99, 0.9999, generator=generator)

    def init_state(self, B: int, like: Tensor) -> State:
        state = super().init_state(B, like)
        return {**state, "h": wide(state["h"])}

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        decay_D = wide(self.decay_D).clamp(0, 1).to(h_BD.dtype)
        y_BTD, h_BD = super().scan(decay_D.expand_as(f_BTD), f_BTD * c_BTD, h_BD)
        return y_BTD.to(c_BTD.dtype), h_BD


class MODEL(Recurrent):
    cell_class = SlowCell
