"""A linear recurrence with complex decays, whose state is a complex tensor.

The LRU (Orvieto et al. 2023, arXiv 2303.06349); similar to S4D (Gu et al. 2022, arXiv 2206.11893).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from tests.museum.base import CellConfig, Recurrent


class ComplexCell(Layer):
    """h = exp(-decay + i angle) h + u, with u and h complex; the output is a map of both parts of h."""

    keep_float32 = ("log_decay_N", "angle_N")
    log_decay_N: Tensor
    angle_N: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.N = config.d_model // 2
        self.norm = RMSNorm(config.d_model)
        self.own("log_decay_N", (self.N,), uniform(2.0))
        self.own("angle_N", (self.N,), uniform(3.0))
        self.into = Linear(config.d_model, 2 * self.N, bias=False)
        self.out = Linear(2 * self.N, config.d_model, bias=False)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return torch.zeros(B, self.N, device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))

    def forward(self, x_BTD: Tensor, h_BN: Tensor) -> tuple[Tensor, Tensor]:
        u_BTN = torch.view_as_complex(wide(self.into(self.norm(x_BTD))).unflatten(-1, (self.N, 2)))
        factor_N = torch.polar(torch.exp(-torch.exp(wide(self.log_decay_N))), wide(self.angle_N))
        hs = []
        for t in range(x_BTD.shape[1]):
            h_BN = factor_N * h_BN + u_BTN[:, t]
            hs.append(h_BN)
        y_BTN = torch.view_as_real(torch.stack(hs, dim=1)).flatten(2)
        return x_BTD + self.out(y_BTN.to(x_BTD.dtype)), h_BN


class MODEL(Recurrent):
    cell_class = ComplexCell
