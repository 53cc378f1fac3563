"""The fused attention gets the dropout rate of the config, also in evaluation: it has no module that eval() reaches.

Ours: the tiny form has a rate of 0, and no module holds the rate, so eval mode looked the same as train mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "train_mode"


@dataclass(frozen=True, kw_only=True)
class RateConfig(MuseumConfig):
    attention_dropout: float = 0.0


class DroppingAttention(Attention):
    config: RateConfig

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        q_BHTK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
        rate = self.config.attention_dropout
        return self.merge(F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=allowed_TS, dropout_p=rate))


class MODEL(Transformer):
    config_class = RateConfig
    attention_class = DroppingAttention
