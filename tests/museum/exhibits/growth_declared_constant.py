"""A cache that grows with every token, declared constant.

Similar to ai-dynamo/aiconfigurator#1201 (the growth of a state taken from its first token).
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Transformer

CAUGHT_BY = "declared_growth"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, state_growth="constant")
