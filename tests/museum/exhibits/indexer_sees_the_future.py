"""The best keys are chosen among all keys, and the later ones are masked afterwards: they take the places of others.

Ours: the mask of the attention is right, so no value leaks, but which earlier keys are read depends on later tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.choosing import Choosing, ChoosingAttention

CAUGHT_BY = "causality"


class FarSightedAttention(ChoosingAttention):
    def choose(self, scores_BTS: Tensor, allowed_TS: Tensor) -> Tensor:
        everything_TS = torch.ones_like(allowed_TS)
        itself_TS = torch.eye(allowed_TS.shape[1], dtype=torch.bool)[-allowed_TS.shape[0] :]
        return (super().choose(scores_BTS, everything_TS) | itself_TS) & allowed_TS


class MODEL(Choosing):
    attention_class = FarSightedAttention
