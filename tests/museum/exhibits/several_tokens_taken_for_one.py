"""With a state, a call with several tokens takes the code path of a single token: only the first updates the state.

huggingface/transformers#46741 (Zamba2, Nemotron-H, Bamba, FalconH1 and GraniteMoeHybrid).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class SingleStepCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        if not h_BD.any():
            return super().scan(f_BTD, c_BTD, h_BD)
        _, h_BD = super().scan(f_BTD[:, :1], c_BTD[:, :1], h_BD)
        return h_BD[:, None].expand(-1, f_BTD.shape[1], -1), h_BD


class MODEL(Recurrent):
    cell_class = SingleStepCell
