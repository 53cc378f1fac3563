"""The constructor sets decays to fixed values and `init_weights` does not, so they stay empty after `to_empty`.

NVIDIA-BioNeMo/bionemo-recipes#1368, similar to pytorch/pytorch#104187 and huggingface/transformers#42309.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "meta_device"


class DecayingCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.decay_D = nn.Parameter(torch.linspace(-2, 2, config.d_model))

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD * torch.sigmoid(self.decay_D), c_BTD, h_BD)


class MODEL(Recurrent):
    cell_class = DecayingCell
