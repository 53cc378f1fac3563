"""A step repeats the key heads as 0 1 0 1, where a longer call pairs them as 0 0 1 1.

onnx/onnx#7274, apple/axlearn#842 (key heads that are tiled where they must be repeated).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.grouped import Grouped, GroupedAttention

CAUGHT_BY = "decoding"


class TilingAttention(GroupedAttention):
    def repeat(self, x_BSGK: Tensor, T: int) -> Tensor:
        H = self.config.n_heads
        return x_BSGK.repeat(1, 1, H // x_BSGK.shape[2], 1) if T == 1 else super().repeat(x_BSGK, T)


class MODEL(Grouped):
    attention_class = TilingAttention
