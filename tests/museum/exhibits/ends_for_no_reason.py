"""A model that could go on past the context says that it cannot, and is cut off there.

Ours: the counterpart of a false claim to go on.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits

from ..base import Recurrent

CAUGHT_BY = "declared_growth"


class MODEL(Recurrent):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, extrapolates=False)
