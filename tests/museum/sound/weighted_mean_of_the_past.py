"""Each feature is a mean of the past with its own weights, exponentials of keys divided by a running maximum.

Attention-free transformer (Zhai et al. 2021, arXiv 2105.14103) without learned positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

LEAST = -1e38  # below all keys; minus infinity would give NaN in the difference of two of them


class WeightedCell(nn.Module):
    first_maximum = LEAST

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.into = Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_state(self, B: int, like: Tensor) -> State:
        shape, dtype = (B, self.out.in_features), wide_dtype(like.dtype)
        sums = [like.new_zeros(shape, dtype=dtype) for _ in range(2)]
        return (*sums, like.new_full(shape, self.first_maximum, dtype=dtype))

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        gate_BTD, k_BTD, v_BTD = wide(self.into(self.norm(x_BTD))).chunk(3, dim=-1)
        (sum_BD, weight_BD, maximum_BD), means = state, list[Tensor]()
        for k_BD, v_BD in zip(k_BTD.unbind(1), v_BTD.unbind(1), strict=True):
            new_BD = torch.maximum(maximum_BD, k_BD)
            kept_BD, added_BD = (maximum_BD - new_BD).exp(), (k_BD - new_BD).exp()
            sum_BD, weight_BD = kept_BD * sum_BD + added_BD * v_BD, kept_BD * weight_BD + added_BD
            maximum_BD = new_BD
            means.append(sum_BD / weight_BD)
        mixed_BTD = gate_BTD.sigmoid() * torch.stack(means, dim=1)
        return x_BTD + self.out(mixed_BTD.to(x_BTD.dtype)), (sum_BD, weight_BD, maximum_BD)


class MODEL(Recurrent):
    cell_class = WeightedCell
