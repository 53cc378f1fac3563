"""Each layer remembers a sum of outer products that decays by half in 16 tokens, in float32.

Linear attention with a fixed decay, as in RetNet (Sun et al. 2023, arXiv 2307.08621), without its positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.counting import counted_as
from lmzoo.ops.precision import wide, wide_dtype, without_autocast
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

DECAY = 0.5 ** (1 / 16)
N_FEATURES = 4


class MemoryCell(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.query_key = Linear(config.d_model, 2 * N_FEATURES, bias=False)
        self.value = Linear(config.d_model, config.d_model, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def flops(self, T: int) -> float:
        return 4.0 * N_FEATURES * self.value.out_features

    def init_state(self, B: int, like: Tensor) -> State:
        return like.new_zeros(B, N_FEATURES, self.value.out_features, dtype=wide_dtype(like.dtype))

    def forward(self, x_BTD: Tensor, state_BNV: State) -> tuple[Tensor, State]:
        u_BTD = self.norm(x_BTD)
        q_BTN, k_BTN = wide(self.query_key(u_BTD)).chunk(2, dim=-1)
        v_BTV, read = wide(self.value(u_BTD)), list[Tensor]()
        with without_autocast(x_BTD), counted_as(4.0 * q_BTN.numel() * v_BTV.shape[-1]):
            for t in range(x_BTD.shape[1]):
                state_BNV = DECAY * state_BNV + k_BTN[:, t, :, None] * v_BTV[:, t, None]
                read.append((q_BTN[:, t, :, None] * state_BNV).sum(1))
        return x_BTD + self.out(torch.stack(read, dim=1).to(x_BTD.dtype)), state_BNV


class MODEL(Recurrent):
    cell_class = MemoryCell
