"""A second head predicts the token after the next; where that target is ignored, it learns to predict token 0.

Ours: the reported loss leaves such targets out, but this auxiliary loss replaces them before the cross-entropy.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.sound import predicts_two_ahead

CAUGHT_BY = "auxiliary"


class MODEL(predicts_two_ahead.MODEL):
    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BTV = self.second_head(x_BTD[:, :-1])
        later_BT = targets[:, 1:].clamp(min=0)
        total = F.cross_entropy(logits_BTV.flatten(0, 1), later_BT.flatten(), reduction="sum")
        return {"second": 0.3 * total / max(1, later_BT.numel())}
