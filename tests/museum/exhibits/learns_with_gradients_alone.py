"""A state that is trained by each text is trained only while gradients are on: in decoding it is not.

Ours: `decode` runs under torch.no_grad(), in which such a layer must use torch.enable_grad() itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent

CAUGHT_BY = "same_seed"


class MODEL(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if torch.is_grad_enabled():
            x_BTD = x_BTD - 0.1 * torch.tanh(x_BTD)  # a step of gradient descent
        return x_BTD, state
