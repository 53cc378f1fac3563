"""A memory of outer products has the model's dtype: in a copy in bfloat16 each token rounds all that came before.

Ours: the loop over a prompt computes in float32, and only the state between two calls is rounded. Where the decay is
near one, the errors of hundreds of tokens add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.precision import wide
from lmzoo.state import State
from tests.museum.base import Recurrent
from tests.museum.sound.decaying_memory import MemoryCell

CAUGHT_BY = "state_dtype"


class NarrowCell(MemoryCell):
    def init_state(self, B: int, like: Tensor) -> State:
        return super().init_state(B, like).to(like.dtype)

    def forward(self, x_BTD: Tensor, state_BNV: State) -> tuple[Tensor, State]:
        y_BTD, after_BNV = super().forward(x_BTD, wide(state_BNV))
        return y_BTD, after_BNV.to(torch.promote_types(state_BNV.dtype, x_BTD.dtype))


class MODEL(Recurrent):
    cell_class = NarrowCell
