"""A model declares uniform_at_start=False, although its initial predictions are uniform.

Ours: an exception that is not needed would hide a later fault.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Transformer

CAUGHT_BY = "initial_loss"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, uniform_at_start=False)
