"""Products are added to a memory by torch.baddbmm, which autocast runs in bfloat16, the memory included.

Ours: evaluation is exact, and in training a memory of many tokens stops to grow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "state_dtype"


class AddingCell(nn.Module):
    """Linear attention: S_t = S_{t-1} + k_t v_t', and x + out(norm(S_t' q_t))."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm, self.last_norm = RMSNorm(config.d_model), RMSNorm(config.d_model)
        self.qkv = Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        D = self.out.in_features
        return wide(like.new_zeros(B, D, D))

    def forward(self, x_BTD: Tensor, S_BDD: Tensor) -> tuple[Tensor, State]:
        q_BTD, k_BTD, v_BTD = wide(self.qkv(self.norm(x_BTD))).chunk(3, dim=-1)
        read = []
        for t in range(x_BTD.shape[1]):
            S_BDD = torch.baddbmm(S_BDD, k_BTD[:, t, :, None], v_BTD[:, t, None])
            read.append((q_BTD[:, t, :, None] * S_BDD).sum(1))
        return x_BTD + self.out(self.last_norm(torch.stack(read, dim=1)).to(x_BTD.dtype)), S_BDD


class MODEL(Recurrent):
    cell_class = AddingCell
