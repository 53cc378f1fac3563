"""Rounding to bfloat16 changes which keys a token attends to, and traits does not say that the model chooses.

Ours: four layers, the 4 keys with the highest of 600 scores (as in DeepSeek-V3.2, arXiv 2512.02556).
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.choosing import Choosing

CAUGHT_BY = "long_precision"


class MODEL(Choosing):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, chooses=False)
