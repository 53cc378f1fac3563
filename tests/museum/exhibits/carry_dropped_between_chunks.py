"""Every chunk of 64 tokens but the first starts from a state of zeros.

Similar to fla-org/flash-linear-attention#494 (a sequence in pieces differs from the whole).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.chunked import Chunked, ChunkedCell

CAUGHT_BY = "long_decoding"


class DroppingCell(ChunkedCell):
    def carry(self, S_BHKV: Tensor, summaries: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        states = super().carry(S_BHKV, summaries)
        return [S_BHKV, *(torch.zeros_like(S_BHKV) for _ in states[2:]), states[-1]]


class MODEL(Chunked):
    cell_class = DroppingCell
