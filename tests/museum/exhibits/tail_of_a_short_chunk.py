"""The convolution tail is cut from the tokens of the last call only: a chunk shorter than the tail loses the rest.

hyprstream/hyprstream#1557; fla-org/flash-linear-attention#1140 is the same fault in the backward pass.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class ShortTailCell(Cell):
    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, _ = super().convolve(x_BTD, tail_BWD)
        return y_BTD, F.pad(x_BTD, (0, 0, 2, 0))[:, -2:]


class MODEL(Recurrent):
    cell_class = ShortTailCell
