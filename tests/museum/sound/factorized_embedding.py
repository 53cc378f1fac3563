"""Tokens are embedded in few dimensions and mapped to the width of the model, and back before a tied head.

ALBERT (Lan et al. 2019, arXiv 1909.11942, section 3.1).
"""

from __future__ import annotations

from torch import nn

from lmzoo.layers.head import TiedHead
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from tests.museum.base import CellConfig, Recurrent


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        table = Embedding(config.vocab_size, config.d_model // 2, init=normal(0.1))
        self.tokens = nn.Sequential(table, Linear(config.d_model // 2, config.d_model, bias=False))
        self.head = nn.Sequential(Linear(config.d_model, config.d_model // 2, bias=False), TiedHead(table))
