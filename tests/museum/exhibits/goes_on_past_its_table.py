"""A table of positions that ends, in a model that says it goes on.

A near relative of huggingface/transformers#21080 (positions that are not where the tokens are).
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits

from ..base import Learned

CAUGHT_BY = "edges"


class MODEL(Learned):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, extrapolates=True)
