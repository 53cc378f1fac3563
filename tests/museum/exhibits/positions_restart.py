"""Learned positions start at 0 in every chunk that is decoded.

ml-explore/mlx-lm#93.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Learned

CAUGHT_BY = "decoding"


class MODEL(Learned):
    def positions_of(self, position: int, T: int, state: State) -> Tensor:
        return torch.arange(T)
