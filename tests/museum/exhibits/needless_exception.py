"""A model that asks to be excused from a uniform start, and starts uniformly.

Ours: an exception that nobody needs hides the day when somebody does.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits

from ..base import Transformer

CAUGHT_BY = "initial_loss"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, uniform_at_start=False)
