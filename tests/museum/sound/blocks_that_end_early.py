"""Each token adds the mean of its block of 16 tokens up to itself; the last block of a text is rarely full.

Ours: only the last token of a full block sees 15 tokens back, so the declared reach is not used at every position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State

BLOCK, WIDTH = 16, 24


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, WIDTH)
        self.mix, self.norm = Linear(WIDTH, WIDTH), RMSNorm(WIDTH)
        self.head = Linear(WIDTH, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=BLOCK)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        blocks = [block_BSD.cumsum(1) for block_BSD in x_BTD.split(BLOCK, dim=1)]
        n_T1 = torch.arange(x_BTD.shape[1], device=x_BTD.device)[:, None] % BLOCK + 1
        return self.norm(x_BTD + self.mix(torch.cat(blocks, dim=1) / n_T1)), state
