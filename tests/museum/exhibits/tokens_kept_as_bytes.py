"""The state keeps the last token in one byte, so ids above 255 become others.

Similar to cryscan/web-rwkv#54 (a type of token ids that is too small).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "long_decoding"


class MODEL(Recurrent):
    """Adds an embedding of the token before; before the first token, of token 0."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.before = Embedding(config.vocab_size, config.d_model, init=normal(0.1))

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        last = torch.zeros(batch_size, 1, dtype=torch.uint8, device=like.device)
        return {"last": last, "cells": super().init_layers(batch_size, max_len, like)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        given = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        x_BTD = x_BTD + self.before(torch.cat([given["last"].long(), idx_BT[:, :-1]], dim=1))
        for cell, piece in zip(self.cells, given["cells"], strict=True):
            x_BTD, piece = cell(x_BTD, piece)
            after.append(piece)
        return self.norm(x_BTD), None if state is None else {"last": idx_BT[:, -1:].to(torch.uint8), "cells": after}
