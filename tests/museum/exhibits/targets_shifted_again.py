"""The targets come already shifted, and the model shifts them once more.

huggingface/transformers#562.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.model import LMOutput
from tests.museum.base import Transformer

CAUGHT_BY = "loss_value"


class MODEL(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        logits_BTV = self.head(self.features(idx)[0])
        if targets is None:
            return LMOutput(logits_BTV, None)
        loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        return LMOutput(logits_BTV if return_logits else None, loss)
