"""The model seeds torch's global generator.

HazyResearch/flash-fft-conv#26.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "global_state"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        torch.manual_seed(23)
        return super().features(idx_BT, state)
