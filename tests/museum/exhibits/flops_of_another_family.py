"""The FLOPs formula of another family: attention is counted as if each token saw only the window of a convolution.

EleutherAI/gpt-neox#1094 (a term outside the brackets), tensorflow/tensorflow#899 (an axis left out).
"""

from __future__ import annotations

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "flops"


class MiscountingAttention(Attention):
    def flops(self, T: int) -> float:
        return 4.0 * 3 * self.config.d_model


class MODEL(Transformer):
    attention_class = MiscountingAttention
