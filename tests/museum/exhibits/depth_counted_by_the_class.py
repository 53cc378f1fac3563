"""A constant that depends on the depth is taken from a counter of the class, which goes on with the next model.

Similar to clintongormley/Elastic-Model#25 (independent models that share data through their class).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "same_seed"


class CountingCell(Cell):
    made: ClassVar[int] = 0

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.depth = CountingCell.made
        CountingCell.made += 1

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, c_BTD / (1 + self.depth), h_BD)


class MODEL(Recurrent):
    cell_class = CountingCell
