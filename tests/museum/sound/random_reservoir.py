"""Most weights are a random constant that is never trained: a buffer that is drawn and saved with the weights.

Echo state networks (Jaeger 2001) and reservoir transformers (Shen et al. 2020, arXiv 2012.15045).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from tests.museum.base import CellConfig, Recurrent


class ReservoirCell(nn.Module):
    """h = tanh(A h + B x) with constant A and B; only the map of h to the output is trained."""

    recur_DD: Tensor
    into_DD: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.register_buffer("recur_DD", torch.empty(config.d_model, config.d_model))
        self.register_buffer("into_DD", torch.empty(config.d_model, config.d_model))
        self.out = Linear(config.d_model, config.d_model)
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        for table in (self.recur_DD, self.into_DD):
            nn.init.normal_(table, std=0.9 * len(table) ** -0.5, generator=generator)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, len(self.recur_DD))

    def forward(self, x_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        u_BTD, hs = F.linear(self.norm(x_BTD), self.into_DD), []
        for t in range(x_BTD.shape[1]):
            h_BD = torch.tanh(F.linear(h_BD, self.recur_DD.to(h_BD.dtype)) + u_BTD[:, t]).to(h_BD.dtype)
            hs.append(h_BD)
        return x_BTD + self.out(torch.stack(hs, dim=1)), h_BD


class MODEL(Recurrent):
    cell_class = ReservoirCell
