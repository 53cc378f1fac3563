"""The length of the past is read from the wrong axis of the cache: the number of heads.

dmlc/gluon-nlp#1015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Learned

CAUGHT_BY = "decoding"


class MODEL(Learned):
    def positions_of(self, position: int, T: int, state: State) -> Tensor:
        past = 0 if position == 0 else state["caches"][0][0].entries().shape[2]
        return torch.arange(past, past + T)
