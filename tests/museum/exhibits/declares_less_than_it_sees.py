"""A model with full attention that declares a window.

Similar to ml-explore/mlx-lm#390, where mask and cache disagreed on the window's size.
"""

from __future__ import annotations

from lmzoo.model import Traits
from tests.museum.base import Transformer

CAUGHT_BY = "receptive_field"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=9)
