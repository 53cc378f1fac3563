"""A model that does not look at the present token: it predicts from the tokens before it.

Ours: an n-gram table with a gap, as in skip-gram language models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent


class MODEL(Recurrent):
    """The state holds the embedding of the last token beside the cells' states; zeros before the first token."""

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return {
            "cells": super().init_layers(batch_size, max_len, like),
            "last": like.new_zeros(batch_size, 1, self.config.d_model),
        }

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        embedded_BTD = self.tokens(idx_BT)
        given = self.init_layers(len(idx_BT), 0, embedded_BTD) if state is None else state
        x_BTD, after = torch.cat([given["last"], embedded_BTD[:, :-1]], dim=1), []
        for cell, piece in zip(self.cells, given["cells"], strict=True):
            x_BTD, piece = cell(x_BTD, piece)
            after.append(piece)
        new = {"cells": after, "last": embedded_BTD[:, -1:].clone()}
        return self.norm(x_BTD), None if state is None else new
