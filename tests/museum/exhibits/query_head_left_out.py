"""With three key heads for four query heads, the last query head is left out: the config accepts what does not divide.

Ours: grouped queries by repeat_interleave of a quotient that is rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.configs import require_divides, require_positive
from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "settings"


@dataclass(frozen=True, kw_only=True)
class GroupedConfig(MuseumConfig):
    n_heads: int = 4
    n_groups: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_groups")
        require_divides(self, "n_heads", "d_model")


class GroupedAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        config = self.config
        assert isinstance(config, GroupedConfig)
        H, G = config.n_heads, min(config.n_groups, config.n_heads)
        of_H = torch.arange(G, device=q_BTHK.device).repeat_interleave(H // G)
        y_BTD = super().attend(q_BTHK[:, :, : len(of_H)], k_BSHK[:, :, of_H], v_BSHK[:, :, of_H], allowed_TS)
        return F.pad(y_BTD, (0, config.d_model - y_BTD.shape[-1]))


class MODEL(Transformer):
    config_class = GroupedConfig
    attention_class = GroupedAttention
