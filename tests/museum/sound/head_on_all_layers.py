"""The head reads the outputs of all layers, concatenated, so features are wider than the model.

ELMo (Peters et al. 2018, arXiv 1802.05365) and DenseNet (Huang et al. 2016, arXiv 1608.06993).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        wide = (config.n_layers + 1) * config.d_model
        self.norm = RMSNorm(wide)
        self.head = Linear(wide, config.vocab_size, bias=False)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        outputs, after = [self.tokens(idx_BT)], []
        given = self.init_layers(len(idx_BT), 0, outputs[0]) if state is None else state
        for cell, piece in zip(self.cells, given, strict=True):
            x_BTD, piece = cell(outputs[-1], piece)
            outputs.append(x_BTD)
            after.append(piece)
        return self.norm(torch.cat(outputs, dim=-1)), None if state is None else after
