"""The loss is the mean of the rows' means: a short row counts as much as a long one, and micro-batches do not add up.

meta-pytorch/torchtune#1875, ml-explore/mlx-lm#1413, OpenNMT/OpenNMT-py#2209.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LMOutput
from tests.museum.base import Transformer

CAUGHT_BY = "micro_batches"


class MODEL(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        logits_BTV = self.head(self.features(idx)[0])
        if targets is None:
            return LMOutput(logits_BTV, None)
        losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets, reduction="none")
        counts_B = (targets != IGNORE_INDEX).sum(1)
        loss = (losses_BT.sum(1) / counts_B.clamp(min=1)).sum() / (counts_B > 0).sum().clamp(min=1)
        return LMOutput(logits_BTV if return_logits else None, loss)
