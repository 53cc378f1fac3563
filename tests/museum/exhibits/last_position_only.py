"""Without targets only the logits of the last position are returned: the shape depends on an argument.

karpathy/nanoGPT#42, simple-stories/simple_stories_train#32 (which took it out again).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.model import LMOutput
from tests.museum.base import Transformer

CAUGHT_BY = "shapes"


class MODEL(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        x_BTD, _ = self.features(idx)
        if targets is None:
            return LMOutput(self.head(x_BTD[:, -1:]), None)
        logits_BTV = self.head(x_BTD)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten(), reduction="sum") / max(1, targets.numel())
        return LMOutput(logits_BTV if return_logits else None, loss)
