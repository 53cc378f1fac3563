"""A setting is stored on the class, so the last model that was made decides for all of them.

Similar to clintongormley/Elastic-Model#25 (independent models that share data through their class).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "other_models"


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(CellConfig):
    scale: float = 1.0


class ClassCell(Cell):
    scale: ClassVar[float] = 1.0

    def __init__(self, config: ScaleConfig) -> None:
        super().__init__(config)
        type(self).scale = config.scale

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, self.scale * c_BTD, h_BD)


class MODEL(Recurrent):
    config_class = ScaleConfig
    cell_class = ClassCell
