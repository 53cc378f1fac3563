"""The sum over the targets that are not ignored is divided by the number of all targets.

NovaSky-AI/SkyRL#462, IBM/pytorch-seq2seq#125.
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
        if targets is None:
            return LMOutput(logits_BTV, None)
        total = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten(), reduction="sum")
        return LMOutput(logits_BTV if return_logits else None, total / max(1, targets.numel()))
