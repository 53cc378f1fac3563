"""Decoding writes into the state it was given.

huggingface/transformers#37078 (the cache is updated whether or not the caller wants it).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_is_a_value"


class InPlaceCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, after_BD = super().scan(f_BTD, c_BTD, h_BD.clone())
        return y_BTD, h_BD.copy_(after_BD.detach())


class MODEL(Recurrent):
    cell_class = InPlaceCell
