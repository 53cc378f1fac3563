"""The attention keeps its weights in each forward pass, and offers these, whatever input it is asked about.

Ours: a hook that stores weights on the module is the usual way to look at them, and shows the last text.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "offers"


class KeepingAttention(OfferingAttention):
    kept: Tensor

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        self.__dict__["kept"] = self.weights(self.scores(x_BTD, position)).detach()
        return super().forward(x_BTD, cache, position)

    def offers(self, x_BTD: Tensor, position: int) -> dict[str, Tensor]:
        return {"attention.weights": self.kept}


class MODEL(Offering):
    attention_class = KeepingAttention
