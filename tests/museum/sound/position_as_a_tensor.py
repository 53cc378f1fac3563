"""The position is a tensor in the state with one number per row, and positions are sines that never end.

Sines from Vaswani et al. 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent


def sines(position_BT: Tensor, width: int) -> Tensor:
    """Returns sines and cosines (B, T, width) of positions (B, T) in float64."""
    rate_K = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle_BTK = position_BT[..., None] * rate_K.to(position_BT.device)
    return torch.cat([angle_BTK.sin(), angle_BTK.cos()], dim=-1)


class MODEL(Recurrent):
    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        position_B = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        return {"position": position_B, "cells": super().init_layers(batch_size, max_len, like)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        B, T = idx_BT.shape
        given = self.init_layers(B, 0, x_BTD) if state is None else state
        position_BT = given["position"][:, None] + torch.arange(T, device=idx_BT.device)
        x_BTD = x_BTD + 0.1 * sines(position_BT, self.config.d_model).to(x_BTD.dtype)
        for cell, piece in zip(self.cells, given["cells"], strict=True):
            x_BTD, piece = cell(x_BTD, piece)
            after.append(piece)
        return self.norm(x_BTD), None if state is None else {"position": given["position"] + T, "cells": after}
