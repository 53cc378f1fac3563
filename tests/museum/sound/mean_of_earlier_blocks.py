"""Each token reads the mean of each block of 40 tokens before its own, so the first 40 tokens see no other token.

Ours: the summaries of a hierarchical model, whose first one comes late.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import CellConfig


class MODEL(LanguageModel):
    config_class = CellConfig
    config: CellConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = self.config.d_model
        self.tokens = torch.nn.Embedding(config.vocab_size, D)
        self.layers = torch.nn.ModuleList(Linear(2 * D, D) for _ in range(self.config.n_layers))
        self.head = Linear(D, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        for layer in self.layers:
            blocks = wide(x_BTD).split(40, dim=1)
            memory_BD, parts = torch.zeros_like(blocks[0][:, 0]), []
            for block_BCD in blocks:
                parts.append(memory_BD[:, None].expand_as(block_BCD))
                memory_BD = 0.5 * memory_BD + block_BCD.mean(1)
            both = torch.cat([x_BTD, torch.cat(parts, 1).to(x_BTD.dtype)], dim=-1)
            x_BTD = x_BTD + torch.tanh(layer(both))
        return x_BTD, state
