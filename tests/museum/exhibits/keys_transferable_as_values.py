"""The names of keys and values are exchanged in what is declared as transferable.

Ours: fused projections are divided in the order q, k, v or q, v, k, and both have the same shapes.
"""

from __future__ import annotations

from lmzoo.layers.projections import Projection
from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "transferable"


class ExchangedAttention(OfferingAttention):
    def transferable(self) -> dict[str, Projection]:
        parts = super().transferable()
        return {**parts, "k": parts["v"], "v": parts["k"]}


class MODEL(Offering):
    attention_class = ExchangedAttention
