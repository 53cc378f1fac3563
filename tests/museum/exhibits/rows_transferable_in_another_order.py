"""Rows of queries, keys and values follow each other by kind, and are declared as transferable head by head.

Ours: the declaration was copied from a mixer whose fused projection has the other order; all shapes are right.
"""

from __future__ import annotations

from lmzoo.layers.projections import Projection, output
from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "transferable"


class MisreadAttention(OfferingAttention):
    def transferable(self) -> dict[str, Projection]:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        rows = self.qkv.weight.unflatten(0, (H, 3, K))
        parts = {name: Projection(rows[:, place]) for place, name in enumerate("qkv")}
        return {**parts, "out": output(self.out, H, K)}


class MODEL(Offering):
    attention_class = MisreadAttention
