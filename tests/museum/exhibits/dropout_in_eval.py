"""Attention dropout that ignores the mode, so it is also applied in evaluation.

pytorch/pytorch#124464, meta-pytorch/torchtune#1791, huggingface/pytorch-image-models#1978.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "train_mode"


class DroppingAttention(Attention):
    dropout = 0.1

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.dropout = 0.1

    def merge(self, y_BHTK: Tensor) -> Tensor:
        return F.dropout(super().merge(y_BHTK), self.dropout)


class MODEL(Transformer):
    attention_class = DroppingAttention
