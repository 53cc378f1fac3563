"""Each head has a score without a value that takes attention away; the offered weights sum to 1 as if it did not.

Ours: the offered weights are proportional to those in use, so that a picture of them shows nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.museum.base import MuseumConfig
from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "offers"


class SinkAttention(OfferingAttention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.sinks = nn.Parameter(torch.empty(config.n_heads))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.zeros_(self.sinks)

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / math.sqrt(q_BTHK.shape[-1])
        scores_BHTS = scores_BHTS.masked_fill(~allowed_TS, -math.inf)
        sinks_BHT1 = self.sinks[:, None, None].to(scores_BHTS.dtype).expand(*scores_BHTS.shape[:3], 1)
        weights_BHTX = torch.cat([scores_BHTS, sinks_BHT1], dim=-1).softmax(dim=-1)
        return self.merge(weights_BHTX[..., :-1] @ v_BSHK.transpose(1, 2))


class MODEL(Offering):
    attention_class = SinkAttention
