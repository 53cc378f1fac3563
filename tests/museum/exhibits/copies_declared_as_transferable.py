"""The transferable projections are copies in another layout, not views: what is written to them is lost.

Ours: `reshape` returns a view where it can, and silently a copy where it cannot.
"""

from __future__ import annotations

from lmzoo.layers.projections import Projection
from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "transferable"


class CopyingAttention(OfferingAttention):
    def transferable(self) -> dict[str, Projection]:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        out = self.out.weight.T.reshape(-1).reshape(H, K, -1)
        return {**super().transferable(), "out": Projection(out)}


class MODEL(Offering):
    attention_class = CopyingAttention
