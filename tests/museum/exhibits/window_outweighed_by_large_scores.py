"""A window subtracts 30000, about half of the largest float16, from the scores of older tokens.

Ours: `mask_outweighed_by_large_scores` with the window instead of the future; queries and keys are normalized, so that
only their weights make scores large.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "receptive_field"


class OutweighedAttention(Attention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.weights_2K = nn.Parameter(torch.ones(2, config.d_model // config.n_heads))
        self.parameter_roles = {"weights_2K": "vector"}

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.ones_(self.weights_2K)

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        q_BTHK, k_BSHK = (F.normalize(x, dim=-1) * w for x, w in zip((q_BTHK, k_BSHK), self.weights_2K, strict=True))
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK)
        T, S = allowed_TS.shape
        past_TS = torch.ones(T, S, dtype=torch.bool, device=allowed_TS.device).tril(S - T)
        scores_BHTS = scores_BHTS.masked_fill(~past_TS, -torch.inf) - 3e4 * ~allowed_TS
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class MODEL(Transformer):
    attention_class = OutweighedAttention
