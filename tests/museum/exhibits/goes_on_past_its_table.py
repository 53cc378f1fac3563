"""A model with a table of learned positions declares extrapolates=True, although the table ends at the context.

minimaxir/gpt-2-simple#72, yandexdataschool/nlp_course#105.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Learned

CAUGHT_BY = "edges"


class MODEL(Learned):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, extrapolates=True)
