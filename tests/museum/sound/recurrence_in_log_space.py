"""A gated recurrence computed from logarithms, with a cumulative sum and a cumulative logsumexp over time.

minGRU (Feng et al. 2024, arXiv 2410.01201, appendix B).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import Cell, Recurrent


class LogCell(Cell):
    """h = f h + (1 - f) c with c > 0 and h = 1/2 before the first token, so that all logarithms are finite."""

    def init_state(self, B: int, like: Tensor) -> State:
        start = torch.full_like(wide(like.new_empty(B, self.taps_WD.shape[1])), 0.5)
        return {"tail": super().init_state(B, like)["tail"], "h": start}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, tail = self.convolve(self.norm(x_BTD), state["tail"])
        f_BTD, c_BTD = wide(self.gates(y_BTD)).chunk(2, dim=-1)
        log_c_BTD = torch.where(c_BTD >= 0, torch.log(F.relu(c_BTD) + 0.5), F.logsigmoid(c_BTD))
        decay_BTD = F.logsigmoid(f_BTD).cumsum(1)
        start_B1D = state["h"].log()[:, None]
        inputs_BTD = torch.cat([start_B1D, F.logsigmoid(-f_BTD) + log_c_BTD - decay_BTD], dim=1)
        h_BTD = torch.exp(decay_BTD + torch.logcumsumexp(inputs_BTD, dim=1)[:, 1:])
        return x_BTD + self.out(h_BTD.to(x_BTD.dtype)), {"tail": tail, "h": h_BTD[:, -1].clone()}


class MODEL(Recurrent):
    cell_class = LogCell
