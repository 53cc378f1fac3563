"""The offered gates are divided by the largest of the text, for a picture: they depend on later tokens.

Ours: what is drawn at a token must not change when the text goes on.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "offers"


class OfferingCell(Cell):
    def offers(self, x_BTD: Tensor) -> dict[str, Tensor]:
        tail_BWD = x_BTD.new_zeros(len(x_BTD), 2, x_BTD.shape[-1])
        y_BTD, _ = self.convolve(self.norm(x_BTD), tail_BWD)
        keep_BTD = self.gates(y_BTD).chunk(2, dim=-1)[0].sigmoid()
        return {"gates.decay": keep_BTD / keep_BTD.amax(dim=1, keepdim=True)}


class MODEL(Recurrent):
    cell_class = OfferingCell
