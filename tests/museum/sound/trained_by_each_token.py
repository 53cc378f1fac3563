"""Each row's memory takes a step of gradient descent with every token, computed by torch.autograd.grad in forward.

Test-time training (Sun et al. 2024, arXiv 2407.04620); it enables gradients itself, since decoding has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide, without_autocast
from tests.museum.base import CellConfig, Recurrent

WIDTH = 4


class TrainedCell(nn.Module):
    """W -= 0.2 dloss/dW for the loss (tanh(k W) - v)^2 / 2, then q W is read."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.qkv = Linear(config.d_model, 3 * WIDTH, bias=False)
        self.out = Linear(WIDTH, config.d_model, bias=False)
        self.first_KV = nn.Parameter(torch.empty(WIDTH, WIDTH))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.first_KV, std=0.2, generator=generator)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return wide(self.first_KV).expand(B, WIDTH, WIDTH).clone()

    def forward(self, x_BTD: Tensor, W_BKV: Tensor) -> tuple[Tensor, Tensor]:
        q_BTK, k_BTK, v_BTV = wide(self.qkv(self.norm(x_BTD))).chunk(3, dim=-1)
        read = []
        with without_autocast(x_BTD):
            for t in range(x_BTD.shape[1]):
                W_BKV = W_BKV - 0.2 * self.slope(W_BKV, torch.tanh(k_BTK[:, t]), v_BTV[:, t])
                read.append((q_BTK[:, t, None] @ W_BKV)[:, 0])
        return x_BTD + self.out(torch.stack(read, dim=1).to(x_BTD.dtype)), W_BKV.detach().clone()

    def slope(self, W_BKV: Tensor, k_BK: Tensor, v_BV: Tensor) -> Tensor:
        trained = torch.is_grad_enabled()
        with torch.enable_grad():
            W_BKV = W_BKV if W_BKV.requires_grad else W_BKV.detach().requires_grad_()
            loss = (torch.tanh((k_BK[:, None] @ W_BKV)[:, 0]) - v_BV).square().sum() / 2
            (slope_BKV,) = torch.autograd.grad(loss, W_BKV, create_graph=trained)
        return slope_BKV if trained else slope_BKV.detach()


class MODEL(Recurrent):
    cell_class = TrainedCell
