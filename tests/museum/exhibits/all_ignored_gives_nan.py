"""The mean over no targets is 0 / 0, which is NaN.

Similar to ml-explore/mlx-lm#1413 (windows without any target to train on).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.model import LMOutput
from tests.museum.base import Transformer

CAUGHT_BY = "ignored_targets"


class MODEL(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        logits_BTV = self.head(self.features(idx)[0])
        loss = None if targets is None else F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())
        return LMOutput(logits_BTV if return_logits else None, loss)
