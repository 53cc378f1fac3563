"""While decoding, a running maximum begins at 0: with keys far below zero, all weights are 0, and their mean is NaN.

Ours: training begins at -1e38, and with usual weights the constant that is subtracted has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent
from tests.museum.sound.weighted_mean_of_the_past import LEAST, WeightedCell

CAUGHT_BY = "decoding"


class ZeroCell(WeightedCell):
    first_maximum = 0.0


class MODEL(Recurrent):
    cell_class = ZeroCell

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is not None:
            return super().features(idx_BT, state)
        like = self.tokens.weight
        begun = [(*piece[:2], torch.full_like(piece[2], LEAST)) for piece in self.init_layers(len(idx_BT), 0, like)]
        x_BTD, _ = super().features(idx_BT, begun)
        return x_BTD, None
