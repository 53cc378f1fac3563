"""A model that asks for a tolerance in causality, and is causal to the bit.

Ours: under a tolerance that nobody needs, a small leak would go unseen later.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits

from ..base import Transformer

CAUGHT_BY = "causality"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, causal_tolerance=1e-3)
