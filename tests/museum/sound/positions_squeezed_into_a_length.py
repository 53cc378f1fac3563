"""The positions of a longer text are squeezed into those of nine tokens, so each further token changes all of them.

Position interpolation (Chen et al. 2023, arXiv 2306.15595), with a factor that grows with the text: `same_until` says
where decoding must read all tokens again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import PositionlessAttention, Transformer

FEW = 9


class MODEL(Transformer):
    attention_class = PositionlessAttention

    def same_until(self, length: int) -> int | None:
        return max(length, FEW)

    def share(self, length: int) -> float:
        """Returns the distance of neighbors in a text of `length` tokens."""
        return min(1.0, FEW / length)

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        x_BTD = self.tokens(idx_BT)
        end, D = position + idx_BT.shape[1], x_BTD.shape[2]
        place_T = torch.arange(position, end, device=x_BTD.device, dtype=torch.float64) * self.share(end)
        frequency_D = 0.7 ** torch.arange(D, device=x_BTD.device, dtype=torch.float64)
        return x_BTD + torch.sin(place_T[:, None] * frequency_D).to(x_BTD.dtype)
