"""The window is applied in evaluation only: in training every token sees all earlier tokens.

unslothai/unsloth#8253.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "train_mode"


class SometimesWindowedAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        behind_TS = torch.arange(S - T, S)[:, None] - torch.arange(S)
        return behind_TS >= 0 if self.training else super().mask(T, S)


class MODEL(Transformer):
    attention_class = SometimesWindowedAttention
