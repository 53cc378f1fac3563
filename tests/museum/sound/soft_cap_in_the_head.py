"""The head is a subclass of a linear map that bends its result: cap * tanh(logits / cap).

Gemma 2 (2024, arXiv 2408.00118, section 2); similar to NVIDIA-NeMo/Megatron-Bridge#4645 (a cap that was lost).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, Recurrent


class CappedHead(Linear):
    cap = 3.0

    def forward(self, input: Tensor) -> Tensor:
        return self.cap * torch.tanh(super().forward(input) / self.cap)


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.head = CappedHead(config.d_model, config.vocab_size, bias=False)
