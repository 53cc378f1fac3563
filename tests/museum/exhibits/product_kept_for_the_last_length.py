"""The product of two weights is kept with the length of the text, and computed anew for another length alone.

Ours: as in caches of position biases. A prompt or a step in between hides it, so each call must be repeated at once.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Attention, Transformer
from tests.museum.exhibits.product_of_weights_kept import MergingAttention

CAUGHT_BY = "changed_weights"


class LengthAttention(MergingAttention):
    length = 0

    def merge(self, y_BHTK: Tensor) -> Tensor:
        T = y_BHTK.shape[2]
        if self.length != T:
            self.length, self.merged = T, (self.up.weight @ self.down.weight).detach()
        y_BTD = Attention.merge(self, y_BHTK)
        if self.training or self.merged is None:
            return y_BTD + self.up(self.down(y_BTD))
        return y_BTD + F.linear(y_BTD, self.merged.to(y_BTD.dtype))


class MODEL(Transformer):
    attention_class = LengthAttention
