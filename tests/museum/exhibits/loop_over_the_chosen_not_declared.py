"""A loop over the experts that were chosen cannot be captured in one graph, and traits does not say so.

huggingface/transformers#38518, PrimeIntellect-ai/prime-rl#996.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.sound.experts_that_were_chosen import MODEL as Chosen

CAUGHT_BY = "compiles"


class MODEL(Chosen):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=False)
