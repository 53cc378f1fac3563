"""A memory of pairs that turn by angles of the tokens: angles add up, and what bfloat16 rounds in them adds up, too.

Unitary recurrence (Arjovsky et al. 2015, arXiv 1511.06464) with angles that depend on the token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


class TurningCell(nn.Module):
    """h_t = exp(i angle_t) h_{t-1} + c_t, divided by the root of the number of tokens."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.angle = Linear(config.d_model, config.d_model // 2)
        self.into, self.out = Linear(config.d_model, config.d_model), Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> State:
        zeros_BPN = wide(like.new_zeros(B, self.angle.out_features, 2))
        return {"h": zeros_BPN, "count": torch.zeros(B, 1, dtype=torch.long, device=like.device)}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD_normed = self.norm(x_BTD)
        turned_BTP = torch.tanh(wide(self.angle(x_BTD_normed))).cumsum(1)
        c_BTP = torch.view_as_complex(wide(self.into(x_BTD_normed)).unflatten(2, (-1, 2)).contiguous())
        turn_BTP = torch.polar(torch.ones_like(turned_BTP), turned_BTP)
        before_B1P = torch.view_as_complex(state["h"].contiguous())[:, None]
        h_BTP = turn_BTP * (before_B1P + (turn_BTP.conj() * c_BTP).cumsum(1))
        count_BT = state["count"] + torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device)
        h_BTD = torch.view_as_real(h_BTP).flatten(2) / count_BT[..., None].to(turned_BTP.dtype).sqrt()
        after = {"h": torch.view_as_real(h_BTP[:, -1]).clone(), "count": count_BT[:, -1:].clone()}
        return x_BTD + self.out(h_BTD.to(x_BTD.dtype)), after


class MODEL(Recurrent):
    cell_class = TurningCell
