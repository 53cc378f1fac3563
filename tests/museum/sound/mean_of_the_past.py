"""Each layer adds the mean of all tokens so far, computed with a cumulative sum over time.

Average attention (Zhang et al. 2018, arXiv 1805.00631).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


class MeanCell(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.into = Linear(config.d_model, 2 * config.d_model)
        self.out = Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> State:
        zeros_BD = wide(like.new_zeros(B, self.out.in_features))
        return {"sum": zeros_BD, "count": torch.zeros(B, 1, dtype=torch.long, device=like.device)}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        gate_BTD, u_BTD = self.into(self.norm(x_BTD)).chunk(2, dim=-1)
        sum_BTD = state["sum"][:, None] + wide(u_BTD).cumsum(1)
        count_BT = state["count"] + torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device)
        mean_BTD = (sum_BTD / count_BT[..., None]).to(x_BTD.dtype)
        y_BTD = x_BTD + self.out(torch.sigmoid(gate_BTD) * mean_BTD)
        return y_BTD, {"sum": sum_BTD[:, -1].clone(), "count": count_BT[:, -1:].clone()}


class MODEL(Recurrent):
    cell_class = MeanCell
