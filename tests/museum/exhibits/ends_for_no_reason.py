"""A model that could extrapolate declares extrapolates=False, and so needlessly uses a sliding window.

Ours: the opposite of a false claim to extrapolate.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Recurrent

CAUGHT_BY = "declared_growth"


class MODEL(Recurrent):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, extrapolates=False)
