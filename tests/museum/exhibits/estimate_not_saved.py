"""fit() estimates how much is added to each count, and keeps the number in an attribute, which is not saved.

Ours: the estimate is the default where no pair is rare, as in a random text over few tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State

CAUGHT_BY = "changed_weights"


class Table(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.counts_VV: Tensor
        self.register_buffer("counts_VV", torch.zeros(vocab_size, vocab_size))
        self.begin()

    def begin(self) -> None:
        self.added: Any = 1.0

    def estimated(self) -> float:
        """Returns the share of pairs that occur once; 1 if there is none."""
        once = (self.counts_VV == 1).double().mean().item()
        return once or 1.0

    def keep(self, added: float) -> None:
        self.added = added

    def forward(self, idx_BT1: Tensor) -> Tensor:
        counts_BTV = self.counts_VV[idx_BT1[..., 0]] + self.added
        return (counts_BTV / counts_BTV.sum(-1, keepdim=True)).log()


class MODEL(LanguageModel):
    head: Table

    table_class: ClassVar[type[Table]] = Table

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.head = self.table_class(config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none", trainable=False)

    def fit(self, tokens_BT: Tensor) -> None:
        before, after = tokens_BT[:, :-1], tokens_BT[:, 1:]
        pairs = (before * self.config.vocab_size + after)[(before >= 0) & (after >= 0)]
        counted = torch.bincount(pairs, minlength=self.config.vocab_size**2)
        self.head.counts_VV.copy_(counted.view_as(self.head.counts_VV))
        self.head.keep(self.head.estimated())

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return idx_BT[..., None], state
