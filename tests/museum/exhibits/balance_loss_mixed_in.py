"""An auxiliary loss is added to the reported loss, which is then no longer the cross-entropy.

Similar to allenai/OLMo#760 (how an extra loss is counted in the mean).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.model import LMOutput
from tests.museum.base import Transformer

CAUGHT_BY = "loss_value"


class MODEL(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        logits_BTV, loss = super().forward(idx, targets)
        if loss is not None:
            loss = loss + 1e-2 * logits_BTV.logsumexp(-1).square().mean()
        return LMOutput(logits_BTV if return_logits else None, loss)
