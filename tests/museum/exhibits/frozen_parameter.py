"""A parameter is left with requires_grad=False.

Similar to pytorch/pytorch#715 (weights that the optimizer never sees).
"""

from __future__ import annotations

from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "gradients"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.norm.weight.requires_grad_(False)
