"""Traits says that training is random, but it is not: a needless exception from the checks.

Ours: the opposite of a randomness that is not declared.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Recurrent

CAUGHT_BY = "train_mode"


class MODEL(Recurrent):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=True)
