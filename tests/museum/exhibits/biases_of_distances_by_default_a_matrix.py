"""Biases for each distance and head are a bare parameter (distances, H), looked up by index: it counts as a matrix.

Ours: weight decay pulls the biases to zero, and Muon makes the table orthogonal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "roles"
DISTANCES = 16  # the last one stands for all larger distances


class BiasedAttention(Attention):
    rotary = False

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.bias_NH = nn.Parameter(torch.zeros(DISTANCES, config.n_heads))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.zeros_(self.bias_NH)

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        T, S = allowed_TS.shape
        place_S = torch.arange(S, device=q_BTHK.device)
        distance_TS = (place_S[S - T :, None] - place_S).clamp(0, DISTANCES - 1)
        bias_HTS = self.bias_NH[distance_TS].permute(2, 0, 1).masked_fill(~allowed_TS, -torch.inf)
        return super().attend(q_BTHK, k_BSHK, v_BSHK, bias_HTS.to(q_BTHK.dtype))


class MODEL(Transformer):
    attention_class = BiasedAttention
