"""Experts compute as many rows as tokens choose them, and the model says so, though one graph captures it.

Ours: newer versions of torch capture `nonzero()`, so that what can be captured depends on the version.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.sound import experts_with_their_own_rows


class MODEL(experts_with_their_own_rows.MODEL):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
