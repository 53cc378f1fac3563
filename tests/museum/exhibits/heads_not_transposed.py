"""The heads are concatenated without transposing the time axis first, so each token gets features of other tokens.

jsbaan/transformer-from-scratch#6, hackiey/QAnet-pytorch#2.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class ScramblingAttention(Attention):
    def merge(self, y_BHTK: Tensor) -> Tensor:
        B, H, T, K = y_BHTK.shape
        return y_BHTK.reshape(B, T, H * K)


class MODEL(Transformer):
    attention_class = ScramblingAttention
