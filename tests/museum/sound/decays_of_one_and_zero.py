"""Some channels never forget (a decay of exactly 1), some keep nothing (exactly 0), the others forget by halves.

Ours: a sum, a copy and a mean in one recurrence; logarithms of these decays would be 0 and minus infinity. Similar to
fla-org/flash-linear-attention#463 (gates of exactly 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.precision import wide
from tests.museum.base import Cell, Recurrent


class FixedCell(Cell):
    """h = a h + c with a fixed decay per channel; the cell's other gate scales what comes in."""

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        channel_D = torch.arange(h_BD.shape[-1], device=h_BD.device) % 3
        a_D = torch.tensor([1.0, 0.0, 0.5], device=h_BD.device, dtype=h_BD.dtype)[channel_D]
        hs = []
        for t in range(f_BTD.shape[1]):
            h_BD = a_D * h_BD + (f_BTD[:, t] * c_BTD[:, t]).to(h_BD.dtype)
            hs.append(h_BD)
        return torch.stack(hs, dim=1).to(c_BTD.dtype), h_BD

    def init_state(self, B: int, like: Tensor) -> dict[str, Tensor]:
        return {name: wide(zeros) if name == "h" else zeros for name, zeros in super().init_state(B, like).items()}


class MODEL(Recurrent):
    cell_class = FixedCell
