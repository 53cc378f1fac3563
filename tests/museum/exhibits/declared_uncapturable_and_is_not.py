"""Traits says that shapes depend on the data, but torch.compile captures the model in one graph.

Ours: the opposite of a graph that breaks without a declaration.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Recurrent

CAUGHT_BY = "compiles"


class MODEL(Recurrent):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
