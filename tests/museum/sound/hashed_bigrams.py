"""Beside each token, a hash of the token and the one before it is embedded.

Over-tokenized transformers (Huang et al. 2025, arXiv 2501.16975), n-grams hashed into a table of fixed size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

BUCKETS = 61


class MODEL(Recurrent):
    """The state holds the last token beside the cells' states; before the first token it is 0."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.pairs = Embedding(BUCKETS, config.d_model, init=normal(0.1))

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        last = torch.zeros(batch_size, 1, dtype=torch.long, device=like.device)
        return {"last": last, "cells": super().init_layers(batch_size, max_len, like)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        given = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        before_BT = torch.cat([given["last"], idx_BT[:, :-1]], dim=1)
        x_BTD = x_BTD + self.pairs((31 * before_BT + idx_BT) % BUCKETS)
        for cell, piece in zip(self.cells, given["cells"], strict=True):
            x_BTD, piece = cell(x_BTD, piece)
            after.append(piece)
        return self.norm(x_BTD), None if state is None else {"last": idx_BT[:, -1:].clone(), "cells": after}
