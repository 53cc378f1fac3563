"""The model declares trainable=False, but has parameters that an optimizer would train: a run would only call `fit`.

Ours: a declaration that is not tested can be used to skip the checks of training.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.base import Transformer

CAUGHT_BY = "gradients"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, trainable=False)
