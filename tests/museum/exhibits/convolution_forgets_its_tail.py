"""The short convolution pads with zeros in every call.

huggingface/transformers#46741 (a cached call of several tokens started with an empty convolution).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class TaillessCell(Cell):
    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        return super().convolve(x_BTD, torch.zeros_like(tail_BWD))


class MODEL(Recurrent):
    cell_class = TaillessCell
