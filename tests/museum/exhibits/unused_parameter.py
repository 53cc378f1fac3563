"""A layer is created, counted and saved, but never used.

Similar to pytorch/pytorch#715 (weights that are never trained).
"""

from __future__ import annotations

from lmzoo.layers.norm import RMSNorm
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "gradients"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.spare_norm = RMSNorm(config.d_model)
