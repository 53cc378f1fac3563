"""Without gradients what is computed from weights is kept: after new weights are loaded, the old ones are used.

Ours: a cache for decoding that training or loading does not empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "tied_weights"


class KeepingCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.kept: Tensor | None = None

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        if self.training or torch.is_grad_enabled():
            return super().convolve(x_BTD, tail_BWD)
        if self.kept is None or self.kept.dtype != self.taps_WD.dtype:
            self.kept = self.taps_WD.detach().clone()
        T = x_BTD.shape[1]
        padded_BTD = torch.cat([tail_BWD, x_BTD], dim=1)
        y_BTD = torch.stack([padded_BTD[:, w : w + T] * self.kept[w] for w in range(3)]).sum(0)
        return y_BTD, padded_BTD[:, T:].clone()


class MODEL(Recurrent):
    cell_class = KeepingCell
